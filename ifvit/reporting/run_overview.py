"""What a glance at a run shows: from its small files and the ends of the long ones, so that many are read at once."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ifvit.checkpoint.layout import saved_steps
from ifvit.config.errors import UserError
from ifvit.config.loading import read_yaml
from ifvit.runtime.environment import read_attempts
from ifvit.runtime.metrics import read_last_metrics
from ifvit.runtime.run_directory import RunDirectory

RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"
STALE = "stale"  # no process holds it, and the last one did not say how it ended: it was killed, or its machine died
UNREADABLE = "unreadable"
LAST_RECORDS = 10  # a single logged loss is one batch's, and noisy
# How far back the newest validation loss is looked for.
MOST_BYTES = 16_000_000


@dataclass(frozen=True)
class RunOverview:
    """One run. None: not known, or not there."""

    name: str
    path: str
    state: str
    reason: str | None = None  # of a failure or an interruption
    step: int = 0  # that was logged last, or that the last start began with
    max_steps: int | None = None
    checkpoint_step: int | None = None  # of the newest finished checkpoint
    loss: float | None = None  # mean of the last ten logged, but for those that are no numbers
    validation_loss: float | None = None  # the newest
    samples_per_second: float | None = None  # median of the last ten logged
    seconds_left: float | None = None  # at that speed
    updated: float = 0.0  # seconds since 1970
    starts: int = 0


def read_overviews(root: Path) -> list[RunOverview]:
    """The runs in `root`, or the one that it is: those that run first, then by their last sign of life.

    Raises UserError where there is no such folder.
    """
    try:
        folders = [root] if RunDirectory(root).recipe_file.is_file() else sorted(root.iterdir())
    except OSError as error:
        raise UserError(f"{root}: cannot be listed ({error.strerror}); give the folder that has the runs") from error
    runs = [RunDirectory(folder) for folder in folders]
    overviews = [read_overview(run) for run in runs if run.recipe_file.is_file()]
    return sorted(overviews, key=lambda run: (run.state != RUNNING, -run.updated))


def read_overview(run: RunDirectory) -> RunOverview:
    """Of one run. What cannot be read becomes its state and reason."""
    try:
        recipe = read_yaml(run.recipe_file)
        train = recipe["train"]
        max_steps, global_batch_size = int(train["max_steps"]), int(train["global_batch_size"])
        attempts = read_attempts(run.environment_file)
        is_held = run.is_held()
        checkpoint_step = max(saved_steps(run.checkpoints), default=None)
        records = read_last_metrics(run.metrics_file)
        validation_loss = newest_validation_loss(run.metrics_file, recipe["data"])
    except (UserError, OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return RunOverview(run.name, str(run.path), UNREADABLE, reason)
    ended = attempts[-1].get("ended") if attempts else None
    step = records[-1]["step"] if records else (attempts[-1].get("first_step", 0) if attempts else 0)
    speeds = [record["samples_per_second"] for record in records[-LAST_RECORDS:] if record.get("samples_per_second")]
    speed = statistics.median(speeds) if speeds else None
    left = max(0, max_steps - step)
    return RunOverview(
        name=run.name,
        path=str(run.path),
        state=RUNNING if is_held else state_of(ended, max(step, checkpoint_step or 0), max_steps),
        reason=ended["reason"] if ended and not is_held else None,
        step=step,
        max_steps=max_steps,
        checkpoint_step=checkpoint_step,
        loss=mean_loss([record["loss"] for record in records[-LAST_RECORDS:]]),
        validation_loss=validation_loss,
        samples_per_second=speed,
        seconds_left=left * global_batch_size / speed if speed else None,
        updated=last_sign_of_life(run, records, attempts),
        starts=len(attempts),
    )


def state_of(ended: Mapping[str, Any] | None, step: int, max_steps: int) -> str:
    """Of a run that no process holds. Runs of earlier versions do not say how they ended."""
    if ended is not None:
        return str(ended["outcome"])
    return FINISHED if step >= max_steps else STALE


def mean_loss(losses: Sequence[float | None]) -> float | None:
    """Of those that are numbers, as training leaves out steps whose loss is none; NaN where all are none."""
    if not losses:
        return None
    return statistics.fmean([loss for loss in losses if loss is not None and math.isfinite(loss)] or [math.nan])


def newest_validation_loss(metrics_file: Path, data: Mapping[str, Any]) -> float | None:
    """The newest number within MOST_BYTES of the end; most lines between two validations have none."""
    if data.get("validation_split") is None or not metrics_file.is_file():
        return None
    size = metrics_file.stat().st_size
    num_bytes = 65_536
    while True:
        found = [record.get("validation_loss") for record in read_last_metrics(metrics_file, num_bytes)]
        if numbers := [loss for loss in found if loss is not None]:
            return float(numbers[-1])
        if num_bytes >= min(size, MOST_BYTES):
            return None
        num_bytes *= 8


def last_sign_of_life(
    run: RunDirectory, records: Sequence[Mapping[str, Any]], attempts: Sequence[Mapping[str, Any]]
) -> float:
    """When a step was logged, a checkpoint made, or a start began or ended, whichever was last."""
    times = [record["time"] for record in records[-1:] if "time" in record]
    for attempt in attempts[-1:]:
        times.append(datetime.fromisoformat(attempt["time"]).timestamp())
        if "ended" in attempt:
            times.append(datetime.fromisoformat(attempt["ended"]["time"]).timestamp())
    if run.checkpoints.is_dir():
        times.append(run.checkpoints.stat().st_mtime)
    return min(max(times, default=run.recipe_file.stat().st_mtime), time.time())
