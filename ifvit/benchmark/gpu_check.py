"""Everything that only a GPU shows, in one command under ten minutes: results as JSON.

    python -m ifvit.benchmark.gpu_check --out gpu-check.json

main_job      the main job through its real commands, small: shards, bf16 training, resume bit for bit, samples
attention     every backend at the four cells' shapes, bf16 and float32: right or not, and how fast
cells         the paper's four cells in bf16 at ZeRO 1 on synthetic batches: a step in its parts, TFLOP/s, memory; what
              this device's matrix products and memory reach, to compare with
backends      the same steps with each attention backend, in turns; which cannot be used here, and why
parity        bf16 against float32 losses over the same steps; and the same steps again, bit for bit
zero_stages   the losses of every ZeRO stage against stage 1's; and that they fall
promises      at every ZeRO stage, bit for bit: updates left out, saves while training goes on, resumption, digests; and
              the averages
checkpoints   how long training stands still for a save, asynchronous and not
host_syncs    where a watched step makes the host wait for the GPU
loader        batches through pinned memory that is used again, compared with plain ones
compiled      the four cells again with runtime.compile
compiled_backends  cross_intermediate with runtime.compile and each attention backend, in turns
scenes_cells  the four cells on scenes, short: trained in bf16, evaluated and compared, with the seconds of each

These parts are the tests that need a GPU; there are no others. A part whose check fails has its reason as `failure` in
the report, which is null otherwise, and the exit code is 1. On a CPU (--allow-cpu) they test their own code.

The report is written after each part; a part for which no time is left says so. `--only` takes some of them. A GPU
number is only written by the run that measured it.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ifvit.benchmark.checked_parts import FIRST_COMMANDS, LAST_COMMANDS, MEASUREMENTS, PARTS, Sizes
from ifvit.benchmark.measured_process import one_rank
from ifvit.benchmark.time_limit import NoTimeLeftError, time_limit
from ifvit.config.exit_codes import ExitCode
from ifvit.runtime.distributed import Ranks, training_device
from ifvit.runtime.environment import gpu_names, package_versions
from ifvit.runtime.files import write_atomically
from ifvit.runtime.standard_error import say

WHOLE_REPORT = Path("gpu-check.json")
NOT_RUN = "not run: no time left"
GPU_SIZES = Sizes(
    batch_size=256, windows=5, steps=10, backend_windows=2, backend_cells=4, parity_steps=50, stage_steps=20,
    promise_cases=4, saves=3, batches=50, scenes_steps=300, scenes_cells=4,
)  # fmt: skip
CPU_SIZES = Sizes(
    batch_size=4, windows=1, steps=1, backend_windows=1, backend_cells=1, parity_steps=3, stage_steps=8,
    promise_cases=1, saves=1, batches=5, scenes_steps=2, scenes_cells=1,
)  # fmt: skip


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m ifvit.benchmark.gpu_check", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, help=f"default: {WHOLE_REPORT}")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts; needs --out")
    parser.add_argument("--batch-size", type=int, help="of the cells; default: 256, the paper's")
    parser.add_argument("--seconds", type=float, default=480, help="for all parts together; default: 480")
    parser.add_argument("--allow-cpu", action="store_true", help="run on a CPU too, to check this script itself")
    options = parser.parse_args(arguments)
    if options.only and not options.out:
        parser.error(f"--only: give --out FILE too, so that no whole {WHOLE_REPORT} is replaced")
    if options.batch_size is not None and options.batch_size < 1:
        parser.error(f"--batch-size: is {options.batch_size}, must be at least 1")
    device = training_device(Ranks())
    if device.type != "cuda" and not options.allow_cpu:
        print("error: no CUDA GPU here; --allow-cpu runs the checks on the CPU, at a small size", file=sys.stderr)
        return ExitCode.USER_ERROR
    report = Report(options.out or WHOLE_REPORT, device, time.monotonic() + options.seconds)
    sizes = GPU_SIZES if device.type == "cuda" else CPU_SIZES
    if options.batch_size is not None:
        sizes = sizes.with_batch_size(options.batch_size)
    chosen = options.only or PARTS

    def add(parts: Iterable[str]) -> None:
        for part in parts:
            if part in chosen:
                report.add(part, device, sizes)

    add(FIRST_COMMANDS)
    with one_rank():
        add(MEASUREMENTS)
    add(LAST_COMMANDS)
    print(f"wrote {report.path}")
    for part, failure in report.failures.items():
        say(f"FAILED {part}: {failure}")
    return ExitCode.FAILED if report.failures else ExitCode.DONE


@dataclass
class Report:
    """The file that results go to, part by part, until `deadline` on the monotonic clock."""

    path: Path
    device: torch.device
    deadline: float

    def __post_init__(self) -> None:
        self.content: dict[str, Any] = {
            "date": time.strftime("%Y-%m-%d"),
            "device": gpu_names()[0] if self.device.type == "cuda" else f"cpu ({platform.machine()})",
            "packages": package_versions(),
        }
        self.failures: dict[str, str] = {}

    def add(self, part: str, device: torch.device, sizes: Sizes) -> None:
        """Run `part` and write what it found; a part that breaks is a failure, and the others go on."""
        start = time.monotonic()
        try:
            with time_limit(self.deadline - start):
                result = PARTS[part](device, sizes)
        except NoTimeLeftError:
            result = {"failure": None, "result": NOT_RUN}
        except Exception as error:  # whatever it is, the parts that are left are worth their numbers
            result = {"failure": f"{type(error).__name__}: {error}"}
        seconds = time.monotonic() - start
        self.content[part] = {**result, "seconds": seconds}
        if result["failure"] is not None:
            self.failures[part] = result["failure"]
        write_atomically(self.path, (json.dumps(self.content, indent=2) + "\n").encode())
        say(f"{part}: {result.get('result') or result['failure'] or 'done'}, {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
