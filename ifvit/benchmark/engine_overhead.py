"""What DeepSpeed on one process costs over a plain PyTorch loop: both train the same model, in turns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ifvit.benchmark.step_time import StepTimes, measure_steps
from ifvit.benchmark.synthetic_training import (
    PARTS,
    MakeEngine,
    SyntheticTraining,
    deepspeed_engine,
    plain_engine,
    with_batch_size,
)
from ifvit.config.schema import Recipe

PLAIN, PLAIN_AGAIN, DEEPSPEED = "plain", "plain again", "deepspeed"


@dataclass(frozen=True)
class Case:
    """A ZeRO stage and a batch size to compare at."""

    zero_stage: int
    batch_size: int


def measure_overhead(
    recipe: Recipe,
    case: Case,
    windows: int,
    steps_per_window: int,
    device: torch.device,
    on_window: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Seconds per step in float32 of the plain loop, of the same once more as a control, and of DeepSpeed; ratios.

    The process group must exist. `ratio_of_bests` is DeepSpeed's fastest window / the plain loop's; `control_ratio` is
    the same of two plain loops: how far equal ones are apart on this machine.
    """
    recipe = recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update={"precision": "fp32"}),
            "runtime": recipe.runtime.model_copy(update={"zero_stage": case.zero_stage}),
        }
    )
    makers: dict[str, MakeEngine] = {PLAIN: plain_engine, DEEPSPEED: deepspeed_engine, PLAIN_AGAIN: plain_engine}
    recipe = with_batch_size(recipe, case.batch_size)
    trainings = {name: SyntheticTraining(recipe, device, make) for name, make in makers.items()}
    times = measure_steps(trainings, windows, steps_per_window, on_window)
    plain, again, deepspeed = times[PLAIN], times[PLAIN_AGAIN], times[DEEPSPEED]
    return {
        "zero_stage": case.zero_stage,
        "batch_size": case.batch_size,
        "loops": {name: loop_report(loop) for name, loop in times.items()},
        "ratio_of_bests": deepspeed.best_seconds / plain.best_seconds,
        "ratio_of_rounds": deepspeed.ratio_to(plain),
        "control_ratio": again.best_seconds / plain.best_seconds,
    }


def loop_report(times: StepTimes) -> dict[str, float]:
    return {
        "best_step_seconds": times.best_seconds,
        "step_seconds": times.step_seconds,
        "spread": times.spread,
        **{f"{part}_seconds": times.part_seconds(part) for part in PARTS},
    }
