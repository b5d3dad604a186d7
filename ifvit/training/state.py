"""What a training run is made of between two steps: its progress, its outcome, its watchers."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass
class TrainState:
    """What a resumed run must know besides weights and moments. Everything random is derived from it."""

    step: int = 0  # optimiser steps done
    samples_seen: int = 0
    stop_reason: str | None = None  # a hook sets it on all ranks alike; the loop ends after the step


@dataclass(frozen=True)
class StepResult:
    """Tensors, not floats: only a hook that logs pays for the device sync."""

    loss: Tensor  # scalar, the mean over this rank's rows
    grad_norm: Tensor  # scalar, over all ranks
    learning_rate: float


class NonFiniteError(Exception):
    """Loss, gradients or weights became NaN or infinite: going on only spends time. Nothing is saved from there."""


class Hook(Protocol):
    """Watches the loop from outside. Called on all ranks alike, so a hook may use collective operations."""

    def on_start(self, state: TrainState) -> None: ...
    def on_step(self, state: TrainState, result: StepResult) -> None: ...
    def on_stop(self, state: TrainState) -> None: ...
