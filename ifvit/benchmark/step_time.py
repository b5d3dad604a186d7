"""Seconds per training step of several trainings, interleaved in one process so that they meet the same machine."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ifvit.benchmark.synthetic_training import PARTS, SyntheticTraining, Window
from ifvit.model.flops import count_flops
from ifvit.training.device_use import FORWARD_AND_BACKWARD


@dataclass
class StepTimes:
    """The measured windows of one training."""

    windows: list[Window] = field(default_factory=list)

    @property
    def step_seconds(self) -> float:
        """The median window's."""
        return statistics.median(self.seconds)

    @property
    def best_seconds(self) -> float:
        """The fastest window's."""
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """(slowest - fastest window) / median."""
        return (max(self.seconds) - min(self.seconds)) / self.step_seconds

    @property
    def seconds(self) -> list[float]:
        return [window.step_seconds for window in self.windows]

    def ratio_to(self, other: "StepTimes") -> float:
        """Median over the rounds of this window's time / the other's window beside it."""
        return statistics.median(ours / theirs for ours, theirs in zip(self.seconds, other.seconds, strict=True))

    def part_seconds(self, part: str) -> float:
        """Median over the windows of one of PARTS."""
        return statistics.median(window.part_seconds[part] for window in self.windows)


def measure_steps(
    trainings: Mapping[str, SyntheticTraining],
    windows: int,
    steps_per_window: int,
    on_window: Callable[[], object] = lambda: None,
) -> dict[str, StepTimes]:
    """`windows` windows of each, in turns, after one that is not counted. Each round begins with another training."""
    times = {name: StepTimes() for name in trainings}
    names = list(trainings)
    for window in range(windows + 1):
        first = window % len(names)
        for name in (*names[first:], *names[:first]):
            # A block compiled too often falls back to eager, which would be taken for compiled.
            with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
                measured = trainings[name].run_window(steps_per_window)
            if window > 0:
                times[name].windows.append(measured)
            on_window()
    return times


def cell_reports(
    trainings: Mapping[str, SyntheticTraining], times: Mapping[str, StepTimes]
) -> dict[str, dict[str, Any]]:
    """By name: what `bench step` says of each; memory is of a GPU, 0 on a CPU."""
    first = times[next(iter(trainings))]
    return {name: cell_report(training, times[name], first) for name, training in trainings.items()}


def cell_report(training: SyntheticTraining, times: StepTimes, first: StepTimes) -> dict[str, Any]:
    recipe = training.recipe
    samples_per_second = recipe.train.global_batch_size / times.step_seconds
    gflops = FORWARD_AND_BACKWARD * count_flops(recipe.model)["gflops_with_attention"]
    return {
        "batch_size": recipe.train.global_batch_size,
        "precision": recipe.train.precision,
        "zero_stage": recipe.runtime.zero_stage,
        "attention_backend": training.attention_backend,
        "step_seconds": times.step_seconds,
        **{f"{part}_seconds": times.part_seconds(part) for part in PARTS},
        "best_step_seconds": times.best_seconds,
        "spread": times.spread,
        "ratio_to_first": times.ratio_to(first),
        "samples_per_second": samples_per_second,
        "model_tflops_per_second": gflops * samples_per_second / 1000,
        "state_memory_gb": training.state_memory_gb,
        "step_memory_gb": max(window.step_memory_gb for window in times.windows),
    }
