"""A plan against a few steps of the same recipe on this machine: one rank, in a process of its own.

The prediction of the step's time uses this machine's measured matrix products and memory, not a data sheet.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from ifvit.benchmark.plan import Plan, make_plan
from ifvit.benchmark.plan_request import Assumptions, PlanRequest
from ifvit.benchmark.planned_device import PlannedDevice
from ifvit.config.errors import UserError
from ifvit.config.exit_codes import ExitCode
from ifvit.config.loading import load_recipe, resolved_yaml
from ifvit.config.schema import Recipe

NUM_STEPS = 5
NOT_READ = ("data.", "encoders.", "runtime.runs_root")
STATE_PARTS = ("weights", "fp32 master", "Adam moments", "EMA")
STEP_PARTS = ("activations", "gradients", "reduction", "gathered blocks")


@dataclass(frozen=True)
class Comparison:
    """One number of a plan and what was measured: `unit` of both."""

    name: str
    unit: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """(predicted - measured) / measured; 0 where both are."""
        return (self.predicted - self.measured) / self.measured if self.measured else float(self.predicted != 0)


def check_plan(recipe: Recipe) -> list[Comparison]:
    """Raises UserError where the steps would not fit in the memory of the device here, or cannot be looked into."""
    if recipe.runtime.compile:
        raise UserError("--check: the tensors of compiled blocks cannot be counted; give --set runtime.compile=false")
    if recipe.runtime.offload_optimizer:
        raise UserError(
            "--check: what is offloaded cannot be told from what is not; give --set runtime.offload_optimizer=false"
        )
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "recipe.yaml"), Path(folder, "measured.json")
        given.write_text(resolved_yaml(recipe), encoding="utf-8")
        command = [sys.executable, "-m", "ifvit.benchmark.plan_check", str(given), str(found)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode == ExitCode.USER_ERROR:
            raise UserError(*done.stderr.splitlines()[-1:])
        if done.returncode != ExitCode.DONE:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
        measured = json.loads(found.read_text())
    rates = measured["product_flops_per_second"] / 1e12, measured["bytes_per_second"] / 1e9
    return comparisons(make_plan(one_rank_request(recipe, *rates)), measured)


def comparisons(plan: Plan, measured: dict[str, Any]) -> list[Comparison]:
    """`plan` beside the fields of a `Measured`."""
    parts = {part.name: part.num_bytes for part in plan.parts}
    state = [(name, parts.get(name, 0), measured["state"][name]) for name in STATE_PARTS]
    step = sum(parts.get(name, 0) for name in STEP_PARTS)
    rows = [
        *state,
        ("activations that forward keeps", plan.model.step.kept, measured["kept"]),
        ("gradients and activations, peak", step, measured["step_peak"]),
        (
            "all of these",
            sum(parts.get(name, 0) for name in STATE_PARTS) + step,
            sum(measured["state"].values()) + measured["step_peak"],
        ),
        ("a checkpoint's tensors on disk", plan.storage.checkpoint, measured["checkpoint"]),
    ]
    sizes = [Comparison(name, "MB", predicted / 1e6, found / 1e6) for name, predicted, found in rows]
    return [*sizes, Comparison("step", "ms", 1e3 * plan.seconds.step, 1e3 * measured["seconds_per_step"])]


def check_text(checked: list[Comparison]) -> list[str]:
    """A table of predictions and measurements."""
    rows = [
        f"  {row.name:34}{row.predicted:>11.1f}{row.measured:>11.1f} {row.unit}{row.error:>+9.1%}" for row in checked
    ]
    return [
        "Check: one rank here, on synthetic batches      (the machine must be idle: a busy one makes the step longer)",
        f"  {'':34}{'predicted':>11}{'measured':>11}      error",
        *rows,
    ]


def one_rank_request(recipe: Recipe, tflops: float, gb_per_second: float) -> PlanRequest:
    """`recipe` on this process's device as it was measured: nothing is assumed, data is there at once."""
    here = PlannedDevice("this machine", tflops, tflops, psutil.virtual_memory().total / 1e9, gb_per_second, 1.0)
    assumed = replace(Assumptions(), mfu=1.0, samples_per_second=float("inf"))
    return PlanRequest(recipe, here, 1, 1, assumed)


def refuse_too_large(plan: Plan, free_bytes: int) -> None:
    """Raises UserError unless what `plan` needs is free."""
    if plan.memory_gb > free_bytes / 1e9:
        raise UserError(
            f"--check: needs about {plan.memory_gb:.1f} GB, {free_bytes / 1e9:.1f} are free here; give a smaller "
            "--set train.micro_batch_size=... and --set train.global_batch_size=..."
        )


def free_memory(device: torch.device) -> int:
    """Bytes: the GPU's own, or the machine's."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def main(recipe_path: str, result_path: str) -> None:
    """In a process of its own: measure the recipe in one file, write the numbers into the other."""
    from ifvit.benchmark.measured_process import one_rank
    from ifvit.benchmark.plan_measured import measure_training
    from ifvit.runtime.distributed import Ranks

    recipe = load_recipe(recipe_path, unused=NOT_READ)
    with one_rank() as device, tempfile.TemporaryDirectory() as folder:
        refuse_too_large(make_plan(one_rank_request(recipe, 1.0, 1.0)), free_memory(device))
        measured = measure_training(recipe, Ranks(), device, NUM_STEPS, Path(folder))
    Path(result_path).write_text(json.dumps(vars(measured)))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as error:
        print(" ".join(error.lines), file=sys.stderr)
        sys.exit(ExitCode.USER_ERROR)
