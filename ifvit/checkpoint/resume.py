"""Puts a checkpoint into an engine, at any ZeRO stage and number of ranks."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor

from ifvit.checkpoint.layout import WEIGHTS, ema_kind
from ifvit.checkpoint.load import Checkpoint
from ifvit.checkpoint.manifest import recipe_sha256
from ifvit.config.schema import Recipe
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.standard_error import say
from ifvit.training.ema import Ema
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.fragments import MOMENTS
from ifvit.training.state import TrainState


def restore_weights(checkpoint: Checkpoint, engine: DeepSpeedEngine) -> None:
    """Put this rank's part of the weights into an engine that has trained. Collective."""
    copy_parts(checkpoint, WEIGHTS, engine, [fragment.weight for fragment in engine.fragments])
    engine.refresh_weights()


def restore_state(checkpoint: Checkpoint, state: TrainState, engine: DeepSpeedEngine, ema: Ema) -> None:
    """Put this rank's part of moments and averages, and the progress, where training goes on from.

    The weights must be in the model before the engine is made, which copies them, or come by `restore_weights`.
    """
    progress = checkpoint.manifest.progress
    engine.create_moments(progress.optimizer_steps)
    for kind in MOMENTS:
        copy_parts(checkpoint, kind, engine, [engine.moment(fragment, kind) for fragment in engine.fragments])
    for decay, averages in ema.averages.items():
        copy_parts(checkpoint, ema_kind(decay), engine, averages)
    state.step = progress.step
    state.samples_seen = progress.samples_seen
    state.skipped_batches = progress.skipped_batches
    state.bad_steps = deepcopy(progress.bad_steps)


def say_other_recipe(checkpoint: Checkpoint, recipe: Recipe, ranks: Ranks) -> None:
    """Say it where the checkpoint was saved under values that a run does not change between two starts."""
    if ranks.rank == 0 and checkpoint.manifest.recipe_sha256 != recipe_sha256(recipe):
        say(f"{checkpoint.folder}: was saved with another recipe than this one")


@torch.no_grad()
def copy_parts(checkpoint: Checkpoint, kind: str, engine: DeepSpeedEngine, targets: Sequence[Tensor]) -> None:
    for fragment, target in zip(engine.fragments, targets, strict=True):
        target.copy_(checkpoint.read(kind, fragment.name, fragment.start, target.numel()))
