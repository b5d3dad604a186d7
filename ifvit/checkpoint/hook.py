"""Saves the training state every so many steps, and when training ends."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from ifvit.checkpoint.layout import WEIGHTS, ema_kind
from ifvit.checkpoint.save import save_checkpoint
from ifvit.config.schema import Recipe
from ifvit.runtime.distributed import Ranks
from ifvit.training.ema import Ema
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.fragments import MOMENTS
from ifvit.training.state import NonFiniteError, StepResult, TrainState


class CheckpointHook:
    """Writes `checkpoints/step-...` every `checkpoint.every_steps` steps and at the end, on all ranks together."""

    def __init__(self, checkpoints: Path, recipe: Recipe, engine: DeepSpeedEngine, ema: Ema, ranks: Ranks) -> None:
        self.checkpoints = checkpoints
        self.recipe = recipe
        self.engine = engine
        self.ema = ema
        self.ranks = ranks
        self.saved_step = 0

    def on_start(self, state: TrainState) -> None:
        self.saved_step = state.step

    def on_step(self, state: TrainState, result: StepResult) -> None:
        if state.step % self.recipe.checkpoint.every_steps == 0:
            self.save(state)

    def on_stop(self, state: TrainState) -> None:
        if state.step > self.saved_step:
            self.save(state)

    def save(self, state: TrainState) -> None:
        fragments = self.engine.fragments
        values = {WEIGHTS: [fragment.weight for fragment in fragments]}
        values |= {kind: [self.engine.moment(fragment, kind) for fragment in fragments] for kind in MOMENTS}
        values |= {ema_kind(decay): averages for decay, averages in self.ema.averages.items()}
        refuse_non_finite(values, state.step)
        save_checkpoint(
            self.checkpoints,
            state,
            self.engine.module,
            fragments,
            values,
            model=self.recipe.model.model_dump(mode="json"),
            zero_stage=self.recipe.runtime.zero_stage,
            ranks=self.ranks,
            keep_last=self.recipe.checkpoint.keep_last,
        )
        self.saved_step = state.step


def refuse_non_finite(values: Mapping[str, Sequence[Tensor]], step: int) -> None:
    """Raises NonFiniteError on every rank unless all values on all ranks are finite. Collective."""
    largest = [norm for tensors in values.values() for norm in torch._foreach_norm(list(tensors), float("inf"))]
    is_finite = torch.isfinite(torch.stack(largest)).all().int() if largest else torch.ones((), dtype=torch.int)
    dist.all_reduce(is_finite, dist.ReduceOp.MIN)
    if not is_finite.item():
        raise NonFiniteError(f"weights, moments or averages are not finite at step {step}, which is not saved")
