"""What a training run is made of between two steps: its progress, its outcome, its watchers."""

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


@dataclass
class BadStepsRecord:
    """What a run remembers of its skipped steps; the same on all ranks."""

    total: int = 0  # skipped steps, those included that a rollback took back
    in_a_row: int = 0  # how many of the last known steps were skipped, without a good one since
    last_batch: int | None = None  # number of the batch of the last skipped step
    rollbacks: int = 0
    good_losses: list[float] = field(default_factory=list)  # the newest, where spikes are watched for


@dataclass
class TrainState:
    """What a resumed run must know besides weights and moments. Everything random is derived from it."""

    step: int = 0  # optimiser steps done
    samples_seen: int = 0
    skipped_batches: int = 0  # batches of the stream that rollbacks left out
    bad_steps: BadStepsRecord = field(default_factory=BadStepsRecord)
    stop_reason: str | None = None  # a hook sets it on all ranks alike; the loop ends after the step

    @property
    def next_batch(self) -> int:
        """The number, in the endless stream, of the batch that the next step is made on; its noise is drawn by it."""
        return self.step + self.skipped_batches


@dataclass(frozen=True)
class StepOutcome:
    """What an optimiser step did, as scalars on the training device, the same on all ranks."""

    grad_norm: Tensor  # float32, over all ranks, before clipping; NaN where a loss or gradient is not finite
    is_skipped: Tensor  # bool: the update was left out, weights and moments are as before


@dataclass(frozen=True)
class StepResult:
    """Tensors, not floats: only a hook that logs pays for the device sync."""

    loss: Tensor  # scalar, the mean over this rank's rows
    grad_norm: Tensor  # as in StepOutcome
    is_skipped: Tensor  # as in StepOutcome
    learning_rate: float
    sample_losses: Tensor  # (R,), of this rank's rows
    timesteps: Tensor  # (R,), of this rank's rows, 0..999
    sample_ids: Tensor  # (R,) int64, of this rank's rows


class AgreedError(Exception):
    """Raised on all ranks at the same step: no rank is to blame for it, and none still waits for another."""


class NonFiniteError(AgreedError):
    """Loss, gradients or weights became NaN or infinite: going on only spends time. Nothing is saved from there."""


class ReplicaError(AgreedError):
    """What all ranks should hold alike is not the same on all of them. Nothing is saved from there."""


class LostRankError(Exception):
    """Another rank is gone or has failed, and this one cannot go on without it."""


class Hook(Protocol):
    """Watches the loop from outside. Called on all ranks alike, so a hook may use collective operations."""

    def on_start(self, state: TrainState) -> None: ...
    def on_step(self, state: TrainState, result: StepResult) -> None: ...
    def on_stop(self, state: TrainState) -> None: ...
