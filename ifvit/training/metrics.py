"""Loss, learning rate, gradient norm and what else is measured: to metrics.jsonl, and to the progress display."""

import time
from collections.abc import Sequence

import torch
import torch.distributed as dist

from ifvit.config.schema import Recipe
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.metrics import MetricsLog
from ifvit.runtime.progress import Progress
from ifvit.training.meter import Meter, is_logged
from ifvit.training.state import StepResult, TrainState


class MetricsHook:
    """Logs every `tracking.log_every_steps` steps, at validations and at the end. Only there a step waits for the
    device.

    Args:
        meters: what gives the metrics beyond loss, learning_rate and grad_norm, those of the logged step, and beyond
            bad_steps and rollbacks, those known by then.
        log: on rank 0, else None.
        progress: on rank 0, else None.
    """

    def __init__(
        self, recipe: Recipe, ranks: Ranks, meters: Sequence[Meter], log: MetricsLog | None, progress: Progress | None
    ) -> None:
        self.recipe = recipe
        self.ranks = ranks
        self.meters = meters
        self.log = log
        self.progress = progress

    def on_start(self, state: TrainState) -> None:
        for meter in self.meters:
            meter.on_start(state)

    def on_step(self, state: TrainState, result: StepResult) -> None:
        for meter in self.meters:
            meter.on_step(state, result)
        if not self.is_due(state):
            if self.progress:
                self.progress.advance()
            return
        record = self.record(state, result)
        if self.log and self.progress:
            self.log.append(record)
            self.progress.advance(postfix_text=postfix_text(record))

    def is_due(self, state: TrainState) -> bool:
        """Whether the newest step is logged."""
        return is_logged(state.step, self.recipe)

    def on_stop(self, state: TrainState) -> None:
        for meter in self.meters:
            meter.on_stop(state)
        if self.progress:
            self.progress.close()

    def record(self, state: TrainState, result: StepResult) -> dict[str, float | int]:
        loss = result.loss.clone()
        if self.ranks.world_size > 1:
            dist.all_reduce(loss)  # every rank has equally many rows, so the mean of means is the mean
        loss /= self.ranks.world_size
        values = torch.stack((loss, result.grad_norm.to(loss))).tolist()  # one wait for the device
        record: dict[str, float | int] = {
            "step": state.step,
            "time": time.time(),
            "samples_seen": state.samples_seen,
            "loss": values[0],
            "learning_rate": result.learning_rate,
            "grad_norm": values[1],
            "bad_steps": state.bad_steps.total,
            "rollbacks": state.bad_steps.rollbacks,
        }
        for meter in self.meters:
            record |= meter.metrics(state, result)
        return record


def postfix_text(record: dict[str, float | int]) -> str:
    """What the progress display shows of a logged step."""
    parts = [f"loss {record['loss']:.4f}"]
    if "validation_loss" in record:
        parts.append(f"validation loss {record['validation_loss']:.4f}")
    return ", ".join([*parts, f"{record['samples_per_second']:.3g} samples/s"])
