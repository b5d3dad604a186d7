"""Everything that only a GPU shows, in one command under ten minutes: results as JSON.

    python -m ifvit.benchmark.gpu_check --out gpu-check.json

1. Attention: every backend at the paper's shapes against float32 math, output and gradient, with its time.
2. Engine: the paper's four cells in bf16 at ZeRO 1 on synthetic batches: step time, samples/s, TFLOP/s, memory.
3. Parity: bf16 against float32 losses over the same steps; and the same steps again, bit for bit.
4. The main job through its real commands, small: shards, bf16 training with grids, resume bit for bit, sampling.
5. The four cells on scenes, short: trained in bf16, evaluated and compared, with the seconds of each.
6. Loader: batches through pinned memory that is used again, compared with plain ones.

These are the parts attention, cells, parity, loader, main_job and scenes_cells; `--only` takes some of them.

A GPU number is only written by the run that measured it.
"""

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ifvit.benchmark.main_job import check_main_job
from ifvit.benchmark.pinned_loader import check_loader
from ifvit.benchmark.scenes_cells import check_scenes_cells
from ifvit.benchmark.synthetic_training import synthetic_batch
from ifvit.config.errors import UserError
from ifvit.config.schema import DiffusionConfig, ModelConfig, OptimizerConfig, RuntimeConfig, TrainConfig
from ifvit.diffusion.objective import Objective
from ifvit.diffusion.schedule import NoiseSchedule
from ifvit.model.attention import BACKENDS, activate
from ifvit.model.attention_cache import user_cache_folder
from ifvit.model.attention_check import (
    attention_calls,
    backend_failure,
    largest_errors,
    make_probes,
    output_and_gradients,
)
from ifvit.model.attention_choice import choose_for_training, synchronise
from ifvit.model.flops import count_flops
from ifvit.model.uvit import UViT
from ifvit.runtime.distributed import find_ranks, start_process_group, stop_process_group, training_device
from ifvit.runtime.environment import gpu_names, package_versions
from ifvit.runtime.files import write_atomically
from ifvit.training.ema import Ema
from ifvit.training.engine import DeepSpeedEngine

EARLY: dict[str, Any] = {"schedule": "early"}
INTERMEDIATE: dict[str, Any] = {"schedule": "intermediate", "num_image_blocks": 4, "num_text_blocks": 1}
CELLS = {
    "concat_early": ("concat", EARLY),
    "concat_intermediate": ("concat", INTERMEDIATE),
    "cross_early": ("cross_attention", EARLY),
    "cross_intermediate": ("cross_attention", INTERMEDIATE),
}


# Each part of the report, measured in this process and, after it has left its process group, by commands.
MEASUREMENTS: dict[str, Callable[[torch.device, argparse.Namespace], Any]] = {
    "attention": lambda device, _: check_attention(device),
    "cells": lambda device, options: {
        name: measure_cell(name, device, options.batch_size, options.steps) for name in CELLS
    },
    "parity": lambda device, _: check_parity(device, 50 if device.type == "cuda" else 5),
    "loader": lambda device, _: check_loader(device, 50 if device.type == "cuda" else 5),
}
COMMANDS: dict[str, Callable[[torch.device], dict[str, Any]]] = {
    "main_job": lambda _: check_main_job(),
    "scenes_cells": lambda device: short_scenes_cells(device),
}
PARTS = (*MEASUREMENTS, *COMMANDS)
WHOLE_REPORT = Path("gpu-check.json")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m ifvit.benchmark.gpu_check", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, help=f"default: {WHOLE_REPORT}")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts; needs --out")
    parser.add_argument("--batch-size", type=int, default=256, help="default: 256, the paper's")
    parser.add_argument("--steps", type=int, default=50, help="measured steps of each cell; default: 50")
    parser.add_argument("--allow-cpu", action="store_true", help="run on a CPU too, to check this script itself")
    options = parser.parse_args(arguments)
    if options.only and not options.out:
        parser.error(f"--only: give --out FILE too, so that no whole {WHOLE_REPORT} is replaced")
    ranks = find_ranks()
    device = training_device(ranks)
    if device.type != "cuda" and not options.allow_cpu:
        print("error: no CUDA GPU here; --allow-cpu runs the checks on the CPU, at a small size", file=sys.stderr)
        return 2
    parts = options.only or PARTS
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "device": gpu_names()[0] if device.type == "cuda" else f"cpu ({platform.machine()})",
        "packages": package_versions(),
    }
    start_process_group(ranks, device, timeout_seconds=600)
    try:
        report |= {part: measure(device, options) for part, measure in MEASUREMENTS.items() if part in parts}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        stop_process_group()
    report |= {part: run(device) for part, run in COMMANDS.items() if part in parts}
    out = options.out or WHOLE_REPORT
    write_atomically(out, (json.dumps(report, indent=2) + "\n").encode())
    print(f"wrote {out}")
    failed = [part for part in ("loader", *COMMANDS) if part in report and report[part]["failure"] is not None]
    for part in failed:
        say(f"FAILED {part}: {report[part]['failure']}")
    return 1 if failed else 0


def short_scenes_cells(device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        return check_scenes_cells(list(CELLS), steps=600, batch_size=256, num_images=500, precision="bf16")
    return check_scenes_cells(["cross_intermediate"], steps=2, batch_size=4, num_images=4, precision="bf16")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def check_attention(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> list[dict[str, Any]]:
    """Per backend and shape: why it fails or None, the largest error against float32, seconds forward and backward."""
    sizes = {} if device.type == "cuda" else {"hidden_size": 128, "num_attention_heads": 2}
    rows = []
    for cell, (conditioning, fusion) in CELLS.items():
        config = ModelConfig.model_validate({"conditioning": conditioning, "fusion": fusion, **sizes})
        for call in attention_calls(config, 64 if device.type == "cuda" else 2):
            for name, function in BACKENDS.items():
                failure = backend_failure(name, [call], dtype, device)
                row: dict[str, Any] = {"backend": name, "cell": cell, "shape": call.text, "failure": failure}
                if failure is None:
                    probes, cotangent = make_probes(call, dtype, device)
                    measured = output_and_gradients(function, probes, cotangent)
                    row["max_error"] = max(largest_errors(measured, probes, cotangent))
                    step = partial(output_and_gradients, function, probes, cotangent)
                    row["seconds"] = median_seconds(step, device, 20)
                rows.append(row)
                say(f"attention {cell} {name:9} {call.text}: {failure or row['max_error']}")
    return rows


def measure_cell(name: str, device: torch.device, batch_size: int, steps: int) -> dict[str, Any]:
    """Step time of the whole engine (forward, backward, AdamW, EMA) in bf16 at ZeRO 1."""
    conditioning, fusion = CELLS[name]
    size: dict[str, Any] = {"conditioning": conditioning, "fusion": fusion}
    if device.type != "cuda":
        size |= {"hidden_size": 64, "num_attention_heads": 2, "sample_size": 8}
        batch_size, steps = 4, 3
    config = ModelConfig.model_validate(size)
    backend = choose_for_training("auto", config, batch_size, torch.bfloat16, device, user_cache_folder()).backend
    activate(backend, torch.bfloat16)
    gc.collect()  # an engine before this one refers to itself
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    step, _ = make_step(config, device, batch_size, "bf16")
    seconds = median_seconds(step, device, steps)
    samples_per_second = batch_size / seconds
    result = {
        "attention_backend": backend,
        "batch_size": batch_size,
        "seconds_per_step": seconds,
        "samples_per_second": samples_per_second,
        "model_tflops_per_second": 3 * count_flops(config)["gflops_with_attention"] * samples_per_second / 1000,
        "peak_memory_gb": torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None,
    }
    say(f"{name}: {seconds:.4f} s/step, {samples_per_second:.0f} samples/s")
    return result


def check_parity(device: torch.device, steps: int) -> dict[str, Any]:
    """Losses of a small model over `steps` steps: bf16 twice, and float32."""
    config = ModelConfig.model_validate({"sample_size": 16, "hidden_size": 128, "num_attention_heads": 2, "depth": 4,
                                         "fusion": {**INTERMEDIATE, "num_image_blocks": 1}})  # fmt: skip
    curves = {}
    for run, precision in (("bf16", "bf16"), ("bf16 again", "bf16"), ("fp32", "fp32")):
        step, losses = make_step(config, device, 16, precision)
        for _ in range(steps):
            step()
        curves[run] = torch.stack(losses).tolist()
    differences = [abs(ours - theirs) for ours, theirs in zip(curves["bf16"], curves["fp32"], strict=True)]
    say(f"parity: bf16 within {max(differences):.2e} of float32, repeats: {curves['bf16'] == curves['bf16 again']}")
    return {
        "steps": steps,
        "bf16_repeats_bit_for_bit": curves["bf16"] == curves["bf16 again"],
        "max_difference_bf16_fp32": max(differences),
        "last_losses": {run: curve[-1] for run, curve in curves.items()},
    }


def make_step(
    config: ModelConfig, device: torch.device, batch_size: int, precision: str
) -> tuple[Any, list[torch.Tensor]]:
    """A function that trains one step on the same synthetic batch, and the list it appends the losses to."""
    torch.manual_seed(0)
    train = TrainConfig.model_validate(
        {"global_batch_size": batch_size, "micro_batch_size": batch_size, "precision": precision}
    )
    optimizer = OptimizerConfig()
    engine = DeepSpeedEngine(UViT(config).to(device), train, optimizer, RuntimeConfig(), world_size=1)
    ema = Ema(engine.fragments, [0.9999])
    null_prompt_embeds = torch.zeros(config.num_text_tokens, config.text_hidden_size, device=device)
    objective = Objective(
        NoiseSchedule(DiffusionConfig(), device), 1.0, null_prompt_embeds, seed=0, global_batch_size=batch_size
    )
    batch = synthetic_batch(config, batch_size, device)
    losses: list[torch.Tensor] = []

    def step() -> None:
        loss = objective.loss(engine.model, batch, objective.draw(len(losses), batch))
        engine.backward(loss)
        engine.step(optimizer.learning_rate)
        ema.update()
        losses.append(loss.detach())

    return step, losses


def median_seconds(function: Any, device: torch.device, repetitions: int) -> float:
    """Median over `repetitions` calls, each waited for, after three that are not counted."""
    seconds = []
    for repetition in range(repetitions + 3):
        synchronise(device)
        start = time.perf_counter()
        function()
        synchronise(device)
        if repetition >= 3:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
