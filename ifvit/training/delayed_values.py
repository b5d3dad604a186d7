"""Numbers of a step for the host, one step late, while the device has the next step's passes to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

Label = TypeVar("Label")


@dataclass(frozen=True)
class PendingCopy(Generic[Label]):
    """Values on their way to the host."""

    label: Label
    values: Tensor  # (N,) float32 on the host, valid once `is_there` has happened
    is_there: torch.cuda.Event | None  # None: at once


class DelayedValues(Generic[Label]):
    """Holds the scalars of at most one step, from `put` until `take`.

    They are taken when the next step's forward and backward passes are queued on the device. That waits for the step
    before, so the host is at most one step ahead; the device meanwhile has those passes to do. On a CPU they are
    there at once and are taken at the same moment all the same: what is decided from them is decided in the same step
    everywhere.
    """

    def __init__(self) -> None:
        self.pending: PendingCopy[Label] | None = None

    def put(self, label: Label, values: Sequence[Tensor]) -> None:
        """Start the copy of `values`, 0-dim tensors on one device, to the host. What was put before must be taken."""
        assert self.pending is None, "values were put twice and not taken"
        stacked = torch.stack([value.detach().to(torch.float32) for value in values])
        if stacked.device.type != "cuda":
            self.pending = PendingCopy(label, stacked, None)
            return
        on_host = torch.empty(len(values), dtype=torch.float32, pin_memory=True)
        on_host.copy_(stacked, non_blocking=True)
        is_there = torch.cuda.Event()
        is_there.record()
        self.pending = PendingCopy(label, on_host, is_there)

    def take(self) -> tuple[Label, list[float]] | None:
        """What was put last, with its label, once: waits for its copy. None when nothing is held."""
        pending, self.pending = self.pending, None
        if pending is None:
            return None
        if pending.is_there is not None:
            pending.is_there.synchronize()
        return pending.label, pending.values.tolist()

    def drop(self) -> None:
        """Forget what is held."""
        self.pending = None
