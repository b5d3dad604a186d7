"""Reading a checkpoint: the newest one that verifies, whole parameters or any part of them, at any number of ranks."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ifvit.checkpoint.layout import WEIGHTS, ema_kind, rank_file, saved_steps, step_folder, tensor_key
from ifvit.checkpoint.manifest import DamagedCheckpointError, Manifest
from ifvit.checkpoint.verification import verify
from ifvit.config.errors import UserError
from ifvit.runtime.agreement import agreed_errors, gathered, patient_group
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.standard_error import say


class Checkpoint:
    """A verified checkpoint in `folder`."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.files: dict[tuple[int, str], Any] = {}

    def read(self, kind: str, name: str, start: int, numel: int) -> Tensor:
        """Elements `start` .. `start + numel` of the flattened parameter `name`: (numel,) float32."""
        pieces = []
        for part in self.manifest.parameters[name].parts:
            low, high = max(start, part.start), min(start + numel, part.start + part.numel)
            if low < high:
                stored = self.file(part.rank, kind).get_slice(tensor_key(kind, name))
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

    def file(self, rank: int, kind: str) -> Any:
        if (rank, kind) not in self.files:
            self.files[rank, kind] = safe_open(self.folder / rank_file(rank, kind), framework="pt")
        return self.files[rank, kind]

    def close(self) -> None:
        """Let go of the files that were read: once removed, they take their space on the disk for as long as that."""
        self.files.clear()


def newest_checkpoint(
    checkpoints: Path,
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    *,
    from_good_steps: bool = False,
) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None where none was ever saved. Rejected ones are named on stderr.

    Collective: each rank reads a share of the files, and all take the same checkpoint.

    Args:
        from_good_steps: one that was saved among skipped steps, as an interrupted run is, does not count, and None is
            given also where all are damaged.

    Raises UserError when checkpoints are there and all are damaged: a run never starts silently from scratch.
    """
    steps = gathered(ranks, saved_steps(checkpoints))[0]
    if not steps:
        return None
    group = patient_group() if ranks.world_size > 1 else None
    for step in reversed(steps):
        folder = step_folder(checkpoints, step)
        manifest, damage = None, ""
        try:
            manifest = verify(folder, ranks)
        except DamagedCheckpointError as error:
            damage = str(error)
        damages = [found for found in gathered(ranks, damage, group) if found]
        if not damages and manifest is not None:
            if from_good_steps and manifest.progress.bad_steps.in_a_row > 0:
                continue
            return Checkpoint(folder, manifest)
        if ranks.rank == 0:
            say(f"rejected checkpoint {folder}: {damages[0]}")
    if from_good_steps:
        return None
    with agreed_errors(ranks):
        raise UserError(
            f"{checkpoints}: no checkpoint is intact; restore one, or start under another name (--set name=...)"
        )


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
