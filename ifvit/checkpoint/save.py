"""Writing a checkpoint: every rank its part, the manifest last, then one rename that makes it exist."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

from ifvit.checkpoint.layout import MANIFEST, rank_file, saved_steps, step_folder, tensor_key, unfinished_folder
from ifvit.checkpoint.manifest import Manifest, Part, StoredParameter
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.files import file_sha256, make_readable
from ifvit.training.fragments import Fragment
from ifvit.training.state import TrainState


def save_checkpoint(
    checkpoints: Path,
    state: TrainState,
    module: nn.Module,
    fragments: Sequence[Fragment],
    values: Mapping[str, Sequence[Tensor]],
    *,
    model: dict[str, Any],
    zero_stage: int,
    ranks: Ranks,
    keep_last: int,
) -> Path:
    """Save `values`, by kind one (numel,) tensor per fragment, and return the checkpoint's folder. Collective.

    The folder gets its name only when everything in it is on disk; afterwards all but the newest `keep_last`
    checkpoints are removed.
    """
    unfinished, finished = unfinished_folder(checkpoints, state.step), step_folder(checkpoints, state.step)
    if ranks.rank == 0:
        for leftover in (*checkpoints.glob(".unfinished-*"), finished):  # of a killed process; of a rejected checkpoint
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir(parents=True)
    dist.barrier()
    written = {}
    if zero_stage > 0 or ranks.rank == 0:  # at stage 0 every rank holds the same
        written = write_rank_file(unfinished / rank_file(ranks.rank), fragments, values)
    everyones: list[Any] = [None] * ranks.world_size
    dist.all_gather_object(everyones, (written, [(f.name, f.start, f.weight.numel()) for f in fragments]))
    if ranks.rank == 0:
        manifest = Manifest(
            step=state.step,
            samples_seen=state.samples_seen,
            world_size=ranks.world_size,
            zero_stage=zero_stage,
            model=model,
            kinds=tuple(values),
            parameters=stored_parameters(module, [parts if files else [] for files, parts in everyones]),
            files={name: digest for files, _ in everyones for name, digest in files.items()},
            skipped_batches=state.skipped_batches,
            bad_steps=state.bad_steps,
        )
        write_durably(unfinished / MANIFEST, manifest.dump())
        fsync_folder(unfinished)
        unfinished.rename(finished)
        fsync_folder(checkpoints)
        for step in saved_steps(checkpoints)[:-keep_last]:
            shutil.rmtree(step_folder(checkpoints, step))
    dist.barrier()
    return finished


def write_rank_file(
    path: Path, fragments: Sequence[Fragment], values: Mapping[str, Sequence[Tensor]]
) -> dict[str, dict[str, Any]]:
    tensors = {  # copies: most are views of one flat buffer, and safetensors refuses shared memory
        tensor_key(kind, fragment.name): value.detach().to("cpu", copy=True)
        for kind, kind_values in values.items()
        for fragment, value in zip(fragments, kind_values, strict=True)
    }
    save_file(tensors, path)
    make_readable(path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return {path.name: {"size": path.stat().st_size, "sha256": file_sha256(path)}}


def stored_parameters(
    module: nn.Module, parts_by_rank: Sequence[Sequence[tuple[str, int, int]]]
) -> dict[str, StoredParameter]:
    parts: dict[str, list[Part]] = {name: [] for name, _ in module.named_parameters()}
    for rank, rank_parts in enumerate(parts_by_rank):
        for name, start, numel in rank_parts:
            parts[name].append(Part(rank, start, numel))
    return {
        name: StoredParameter(tuple(parameter.shape), tuple(sorted(parts[name], key=lambda part: part.start)))
        for name, parameter in module.named_parameters()
    }


def write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
