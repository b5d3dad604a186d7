"""Losses of a small model over the same steps: in bf16 and float32, again, and at every ZeRO stage."""

import statistics
from typing import Any

import torch

from ifvit.benchmark.small_training import WRITTEN_OUT, losses_of, small_training

STAGE_TOLERANCES = {"fp32": 1e-5, "bf16": 2e-2}  # of a loss; measured on a CPU: 1.2e-7, and in bf16 1.6e-4 at stage 3
MIN_FALL = 0.01  # of a loss that begins near 1; measured on a CPU, of the tiny model in 8 steps: 0.036


def losses(device: torch.device, steps: int, precision: str, zero_stage: int, *overrides: str) -> list[float]:
    """Of `steps` steps of the small model."""
    return losses_of(small_training(device, precision, zero_stage, *overrides), steps)


def check_parity(device: torch.device, steps: int) -> dict[str, Any]:
    """bf16 twice, and float32."""
    curves = {
        "bf16": losses(device, steps, "bf16", 1),
        "bf16 again": losses(device, steps, "bf16", 1),
        "fp32": losses(device, steps, "fp32", 1),
    }
    repeats = curves["bf16"] == curves["bf16 again"]
    return {
        "failure": None if repeats else "the same steps in bf16 gave other losses",
        "steps": steps,
        "bf16_repeats_bit_for_bit": repeats,
        "max_difference_bf16_fp32": largest_difference(curves["bf16"], curves["fp32"]),
        "last_losses": {run: curve[-1] for run, curve in curves.items()},
    }


def check_zero_stages(device: torch.device, steps: int) -> dict[str, Any]:
    """By precision and stage: the largest difference of a loss from stage 1's, and how far the losses fall.

    Stage 0 has no bf16.
    """
    untrained = losses(device, steps, "fp32", 1, WRITTEN_OUT, "optimizer.learning_rate=1.0e-12")
    differences: dict[str, dict[str, float]] = {}
    falls: dict[str, dict[str, float]] = {}
    failures = []
    for precision, stages in (("fp32", (1, 0, 2, 3)), ("bf16", (1, 2, 3))):
        curves = {stage: losses(device, steps, precision, stage, WRITTEN_OUT) for stage in stages}
        differences[precision] = {str(stage): largest_difference(curves[stage], curves[1]) for stage in stages}
        falls[precision] = {str(stage): fall(curves[stage], untrained) for stage in stages}
        for stage in map(str, stages):
            if not differences[precision][stage] <= STAGE_TOLERANCES[precision]:
                failures.append(f"{precision} at stage {stage}: {differences[precision][stage]:.2g} from stage 1")
            if not falls[precision][stage] > MIN_FALL:  # nor is NaN
                failures.append(f"{precision} at stage {stage}: the loss does not fall")
    return {
        "failure": ", ".join(failures) or None,
        "steps": steps,
        "max_difference_from_stage_1": differences,
        "fall": falls,
    }


def fall(curve: list[float], untrained: list[float]) -> float:
    """How far the last quarter is below that of a model that does not learn: noise makes some steps harder."""
    quarter = max(len(curve) // 4, 1)
    return statistics.mean(untrained[-quarter:]) - statistics.mean(curve[-quarter:])


def largest_difference(ours: list[float], theirs: list[float]) -> float:
    return max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
