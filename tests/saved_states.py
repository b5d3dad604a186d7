"""A training state of two small parameters, and what saves it: the checkpoint package alone, without an engine."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ifvit.checkpoint.commit import Contents
from ifvit.checkpoint.host_buffer import HostBuffer
from ifvit.checkpoint.layout import saved_steps, step_folder
from ifvit.checkpoint.manifest import DamagedCheckpointError, Progress
from ifvit.checkpoint.saver import CheckpointSaver
from ifvit.checkpoint.share import own_pieces
from ifvit.checkpoint.verification import verify
from ifvit.config.schema import CheckpointConfig, ModelConfig
from ifvit.runtime.distributed import Ranks
from ifvit.training.fragments import Fragment
from ifvit.training.state import BadStepsRecord

MODEL = ModelConfig().model_dump(mode="json")
SHAPES = {"weight": (3, 5), "bias": (3,)}
KINDS = ("weights", "exp_avg")


def make_saver(
    checkpoints: Path,
    *,
    shapes: Mapping[str, Sequence[int]] = SHAPES,
    ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    patience_seconds: float = 60,
    **config: object,
) -> CheckpointSaver:
    """Of a run in which every rank holds all."""
    whole = {name: torch.zeros(tuple(shape)).flatten() for name, shape in shapes.items()}
    fragments = [Fragment(name, 0, values, values, 0) for name, values in whole.items()]
    pieces = own_pieces(fragments, ranks, is_sharded=False)
    contents = Contents(shapes=shapes, kinds=KINDS, zero_stage=0, model=MODEL, recipe_sha256="")
    buffer = HostBuffer(KINDS, pieces, torch.device("cpu"))
    saver = CheckpointSaver(
        checkpoints, CheckpointConfig.model_validate(config), contents, buffer, ranks, patience_seconds
    )
    saver.prepare()
    return saver


def values_of(step: int, shapes: Mapping[str, Sequence[int]] = SHAPES) -> dict[str, list[Tensor]]:
    """By kind one flat tensor per parameter; no two numbers of a step are the same, and no two steps."""
    generator = torch.Generator().manual_seed(step)
    numels = [torch.Size(shape).numel() for shape in shapes.values()]
    return {kind: [torch.rand(numel, generator=generator) + step for numel in numels] for kind in KINDS}


def progress_of(step: int, skipped_in_a_row: int = 0) -> Progress:
    bad_steps = BadStepsRecord(5, skipped_in_a_row, last_batch=11, rollbacks=1, good_losses=[0.1, 1 / 3])
    return Progress(step, 4 * step, skipped_batches=2, bad_steps=bad_steps, optimizer_steps=step - 1)


def save(saver: CheckpointSaver, step: int, skipped_in_a_row: int = 0) -> None:
    """The state of `step`, to the end."""
    saver.start(progress_of(step, skipped_in_a_row), values_of(step))
    saver.wait()


def intact_steps(checkpoints: Path) -> list[int]:
    """Of the saved ones, those that verify."""
    intact = []
    for step in saved_steps(checkpoints):
        with contextlib.suppress(DamagedCheckpointError):
            verify(step_folder(checkpoints, step))
            intact.append(step)
    return intact
