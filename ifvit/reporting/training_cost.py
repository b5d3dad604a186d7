"""What a run's training took, from its metrics.jsonl and environment.json."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ifvit.runtime.environment import read_attempts
from ifvit.runtime.metrics import read_metrics
from ifvit.runtime.run_directory import RunDirectory

LOSS_RECORDS = 10  # a single logged loss is one batch's, and noisy


@dataclass(frozen=True)
class TrainingCost:
    """Up to a step; None where nothing was logged."""

    steps_per_second: float | None = None  # median of the logged speeds
    seconds: float | None = None  # of the logged steps with checkpoints and grids; pauses between starts left out
    loss: float | None = None  # mean of the last logged ones that are numbers


def training_cost(run: RunDirectory, global_batch_size: int, last_step: int | None = None) -> TrainingCost:
    """Of all steps, or those up to `last_step`."""
    records, _ = read_metrics(run.metrics_file)
    records = [record for record in records if last_step is None or record["step"] <= last_step]
    if not records:
        return TrainingCost()
    seen = [0, *(record["samples_seen"] for record in records)]
    speeds = [record["samples_per_second"] for record in records]
    losses = [loss for record in records[-LOSS_RECORDS:] if (loss := record["loss"]) is not None]
    return TrainingCost(
        steps_per_second=statistics.median(speeds) / global_batch_size,
        seconds=sum((after - before) / speed for (before, after), speed in zip(pairwise(seen), speeds, strict=True)),
        loss=statistics.fmean(losses) if losses else None,
    )


def training_hardware(run: RunDirectory, last_step: int | None = None) -> str:
    """ "2 x NVIDIA H200", say; all that the starts before `last_step` ran on; "unknown" where there was none."""
    attempts = [
        attempt
        for attempt in read_attempts(run.environment_file)
        if last_step is None or attempt["first_step"] < last_step
    ]
    return " and ".join(dict.fromkeys(map(hardware_text, attempts))) or "unknown"


def hardware_text(attempt: Mapping[str, Any]) -> str:
    if attempt["device"].startswith("cuda"):
        return f"{attempt['world_size']} x {attempt['gpus'][0]}"
    return f"{attempt['world_size']} CPU process(es), {attempt['cpu']['model']}"
