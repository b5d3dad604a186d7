"""Clips an optimiser's update, or leaves it out where loss or gradients are not finite, without the host waiting."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ifvit.training.state import StepOutcome


def carry_into_gradients(micro_loss: Tensor) -> None:
    """Let all gradients of `micro_loss`, a scalar, become NaN where it is not finite, so that their norm tells of it: a
    loss may overflow where no gradient does. Where it is finite they stay as they are, bit for bit."""
    loss = micro_loss.detach()  # the hook must not hold the graph that holds it
    micro_loss.register_hook(lambda gradient: gradient + 0 * loss)


class GuardedUpdate:
    """Hands a fused torch optimiser the divisor of the gradients and whether to leave weights and moments as they are.

    Attributes:
        must_skip: scalar bool, the same on all ranks: the next update is left out. None: it is not.
        outcome: of the newest update.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        read_grad_norm: Callable[[], Tensor],
        max_grad_norm: float | None,
        device: torch.device,
    ) -> None:
        """`read_grad_norm` gives the norm over all ranks, the same on each: NaN, infinite or negative where it is not
        finite. It is called when the gradients are reduced and not yet applied. `device` is where outcomes go."""
        self.read_grad_norm = read_grad_norm
        self.max_grad_norm = max_grad_norm
        self.device = device
        self.must_skip: Tensor | None = None
        self.outcome: StepOutcome | None = None
        optimizer.register_step_pre_hook(self.before_update)

    def before_update(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        grad_norm = self.read_grad_norm().float()
        is_skipped = ~torch.isfinite(grad_norm) | (grad_norm < 0)
        grad_norm = torch.where(is_skipped, torch.nan, grad_norm)
        if self.must_skip is not None:
            is_skipped = is_skipped | self.must_skip.to(is_skipped.device)
        # What torch's gradient scaler uses; the optimiser's own step count stays too.
        optimizer.found_inf = is_skipped.float()
        if self.max_grad_norm is not None:
            optimizer.grad_scale = ((grad_norm + 1e-6) / self.max_grad_norm).clamp(min=1)
        self.outcome = StepOutcome(grad_norm.to(self.device), is_skipped.to(self.device))
