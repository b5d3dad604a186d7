"""What follows from skipped steps: going on, a rollback, or the end. No tensors here."""

import math
from dataclasses import dataclass
from enum import Enum

from ifvit.config.schema import BadStepsConfig
from ifvit.training.loss_window import LossWindow
from ifvit.training.state import BadStepsRecord


class Verdict(Enum):
    """What the steps known so far demand."""

    GO_ON = "go on"
    ROLL_BACK = "roll back"
    STOP = "stop"


@dataclass(frozen=True)
class KnownStep:
    """One step as the host knows it afterwards."""

    step: int  # counted from 1
    batch: int  # its number in the stream
    loss: float  # mean over all ranks where it was skipped or spikes are watched for, else over this rank's rows
    grad_norm: float
    is_skipped: bool


class BadSteps:
    """Counts skipped steps in `record`, in place, and judges them. The same steps give the same verdict on every rank.

    Once they demand a rollback or a stop, further steps change nothing: the rollback takes them back.
    """

    def __init__(self, config: BadStepsConfig, record: BadStepsRecord) -> None:
        self.config = config
        self.record = record
        self.window: LossWindow | None = None  # the good losses, where spikes are watched for
        if config.spike_threshold is not None:
            self.window = LossWindow(config.spike_threshold, config.spike_window, record.good_losses)

    def verdict(self) -> Verdict:
        if self.record.in_a_row < self.config.max_in_a_row:
            return Verdict.GO_ON
        return Verdict.ROLL_BACK if self.record.rollbacks < self.config.max_rollbacks else Verdict.STOP

    def add(self, known: KnownStep) -> None:
        """Count the step that follows those known so far."""
        if self.verdict() is not Verdict.GO_ON:
            return
        record = self.record
        if known.is_skipped:
            record.total += 1
            record.in_a_row += 1
            record.last_batch = known.batch
            return
        assert math.isfinite(known.loss), f"step {known.step} was made though its loss is {known.loss}"
        record.in_a_row = 0
        if self.window is not None:
            self.window.add(known.loss)

    def reason(self, known: KnownStep) -> str:
        """Why `known` was skipped, in words. To be asked before it is added or after: the same."""
        if not math.isfinite(known.loss):
            return f"the loss is not finite (it is {known.loss})"
        if not math.isfinite(known.grad_norm):
            return f"the gradient is not finite (its norm is {known.grad_norm})"
        assert self.window is not None, "only numbers that are not finite, or a spike, skip a step"
        return f"the loss {known.loss:.6g} is a spike, z = {self.window.z_score(known.loss):.1f}"


def rolled_back(record: BadStepsRecord, at_checkpoint: BadStepsRecord) -> BadStepsRecord:
    """What is remembered after a rollback: all that happened, and the good losses as of the checkpoint."""
    return BadStepsRecord(record.total, 0, record.last_batch, record.rollbacks + 1, list(at_checkpoint.good_losses))


def skipped_batches_after(record: BadStepsRecord, checkpoint_step: int) -> int:
    """How many batches are left out so that the step after `checkpoint_step` starts behind the last bad batch."""
    assert record.last_batch is not None, "a rollback without a bad step"
    return record.last_batch + 1 - checkpoint_step
