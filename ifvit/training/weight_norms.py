"""How large the weights are, and how far a step moves them."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from ifvit.config.schema import Recipe
from ifvit.training.fragments import Fragment
from ifvit.training.meter import is_logged
from ifvit.training.state import StepResult, TrainState


class WeightNorms:
    """Gives weight_norm, the 2-norm of all float32 weights, and update_norm, that of the logged step's change of them.

    For the latter it keeps a copy of this rank's weights from the step before until the logged step is done.
    """

    def __init__(self, fragments: Sequence[Fragment], is_sharded: bool, recipe: Recipe) -> None:
        self.fragments = fragments
        self.is_sharded = is_sharded
        self.recipe = recipe
        self.before: list[Tensor] = []
        self.before_step: int | None = None  # the steps done when they were copied

    def on_start(self, state: TrainState) -> None:
        self.copy_before_logged_step(state)

    def on_step(self, state: TrainState, result: StepResult) -> None:
        if not is_logged(state.step, self.recipe):
            self.copy_before_logged_step(state)

    def on_stop(self, state: TrainState) -> None:
        self.before = []

    @torch.no_grad()
    def metrics(self, state: TrainState, result: StepResult) -> dict[str, float]:
        weights = [fragment.weight for fragment in self.fragments]
        norms = {"weight_norm": norm(weights, is_sharded=self.is_sharded)}
        if self.before_step == state.step - 1:
            torch._foreach_sub_(self.before, weights)
            norms["update_norm"] = norm(self.before, is_sharded=self.is_sharded)
        self.before, self.before_step = [], None
        self.copy_before_logged_step(state)
        return norms

    def copy_before_logged_step(self, state: TrainState) -> None:
        if is_logged(state.step + 1, self.recipe):
            self.before = [fragment.weight.detach().clone() for fragment in self.fragments]
            self.before_step = state.step


def norm(tensors: Sequence[Tensor], *, is_sharded: bool) -> float:
    """The 2-norm of all values of `tensors`, and of all ranks' where each holds a part. Collective when sharded."""
    norms = torch.stack(torch._foreach_norm(list(tensors))) if tensors else torch.zeros(1)
    total = norms.double().square().sum().cpu()
    if is_sharded:
        dist.all_reduce(total)
    return float(total.sqrt())
