"""Reading a checkpoint: the newest one that verifies, whole parameters or any part of them, at any number of ranks."""

import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ifvit.checkpoint.layout import WEIGHTS, ema_kind, rank_file, saved_steps, step_folder, tensor_key
from ifvit.checkpoint.manifest import DamagedCheckpointError, Manifest, verify
from ifvit.config.errors import UserError
from ifvit.training.ema import Ema
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.fragments import MOMENTS
from ifvit.training.state import TrainState


class Checkpoint:
    """A verified checkpoint in `folder`."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.files: dict[int, Any] = {}

    def read(self, kind: str, name: str, start: int, numel: int) -> Tensor:
        """Elements `start` .. `start + numel` of the flattened parameter `name`: (numel,) float32."""
        pieces = []
        for part in self.manifest.parameters[name].parts:
            low, high = max(start, part.start), min(start + numel, part.start + part.numel)
            if low < high:
                stored = self.file(part.rank).get_slice(tensor_key(kind, name))
                pieces.append(stored[low - part.start : high - part.start])
        result = torch.cat(pieces)
        assert result.numel() == numel, f"{self.folder}: {kind} of {name} has a gap"
        return result

    def read_all(self, kind: str) -> dict[str, Tensor]:
        """Every parameter whole, by name."""
        stored = self.manifest.parameters.items()
        return {
            name: self.read(kind, name, 0, sum(part.numel for part in parameter.parts)).view(parameter.shape)
            for name, parameter in stored
        }

    def file(self, rank: int) -> Any:
        if rank not in self.files:
            self.files[rank] = safe_open(self.folder / rank_file(rank), framework="pt")
        return self.files[rank]


def newest_checkpoint(checkpoints: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None where none was ever saved. Rejected ones are named on stderr.

    Raises UserError when checkpoints are there and all are damaged: a run never starts silently from scratch.
    """
    rejected = False
    for step in reversed(saved_steps(checkpoints)):
        folder = step_folder(checkpoints, step)
        try:
            return Checkpoint(folder, verify(folder))
        except DamagedCheckpointError as damage:
            rejected = True
            print(f"rejected checkpoint {folder}: {damage}", file=sys.stderr, flush=True)
    if rejected:
        raise UserError(
            f"{checkpoints}: no checkpoint is intact; restore one, or start under another name (--set name=...)"
        )
    return None


def restore_state(checkpoint: Checkpoint, state: TrainState, engine: DeepSpeedEngine, ema: Ema) -> None:
    """Put this rank's part of moments and averages, and the progress, where training goes on from.

    The weights must be in the model before the engine is made: it copies them.
    """
    engine.create_moments(checkpoint.manifest.step)
    for kind in MOMENTS:
        copy_parts(checkpoint, kind, engine, [engine.moment(fragment, kind) for fragment in engine.fragments])
    for decay, averages in ema.averages.items():
        copy_parts(checkpoint, ema_kind(decay), engine, averages)
    state.step = checkpoint.manifest.step
    state.samples_seen = checkpoint.manifest.samples_seen
    state.skipped_batches = checkpoint.manifest.skipped_batches
    state.bad_steps = deepcopy(checkpoint.manifest.bad_steps)


def copy_parts(checkpoint: Checkpoint, kind: str, engine: DeepSpeedEngine, targets: Sequence[Tensor]) -> None:
    for fragment, target in zip(engine.fragments, targets, strict=True):
        target.copy_(checkpoint.read(kind, fragment.name, fragment.start, target.numel()))


def read_weights(checkpoint: Checkpoint, decay: float | None = None) -> dict[str, Tensor]:
    """Float32 weights by name: the average of `decay`, or the trained ones themselves."""
    return checkpoint.read_all(WEIGHTS if decay is None else ema_kind(decay))


def chosen_checkpoint(checkpoints: Path, step: int | None = None) -> Checkpoint:
    """The checkpoint of `step`, or the newest intact one. Raises UserError when it is not there or damaged."""
    if step is None:
        checkpoint = newest_checkpoint(checkpoints)
        if checkpoint is None:
            raise UserError(f"{checkpoints}: no checkpoint was saved yet")
        return checkpoint
    steps = saved_steps(checkpoints)
    if step not in steps:
        raise UserError(f"{checkpoints}: no checkpoint of step {step}, only of {', '.join(map(str, steps)) or 'none'}")
    folder = step_folder(checkpoints, step)
    try:
        return Checkpoint(folder, verify(folder))
    except DamagedCheckpointError as damage:
        raise UserError(f"{folder}: damaged: {damage}; choose another step") from damage
