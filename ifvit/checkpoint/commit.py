"""What makes a checkpoint exist: all ranks' files are on disk, the manifest is written last, one rename names it."""

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifvit.checkpoint.layout import MANIFEST, report_file, step_folder
from ifvit.checkpoint.manifest import Manifest, Progress, stored_parameters
from ifvit.checkpoint.retention import remove
from ifvit.checkpoint.share_files import Tell
from ifvit.data.sealed_json import unsealed
from ifvit.runtime.fault_injection import fault_point

POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Contents:
    """What all checkpoints of a run have in common."""

    shapes: Mapping[str, Sequence[int]]  # of the whole parameters, by name
    kinds: tuple[str, ...]  # weights, exp_avg, exp_avg_sq, ema-...
    zero_stage: int
    model: dict[str, Any]  # the model section of the recipe
    recipe_sha256: str


class AbandonedError(Exception):
    """A rank could not write its share: this checkpoint will never be whole."""


def commit(
    unfinished: Path,
    contents: Contents,
    progress: Progress,
    world_size: int,
    is_abandoned: threading.Event,
    tell: Tell,
) -> None:
    """Give the files of all ranks in `unfinished` their manifest and then their name. For rank 0 only.

    Waits for the other ranks' reports. Raises AbandonedError when `is_abandoned` is set meanwhile, and OSError.
    """
    reports = [awaited_report(unfinished / report_file(rank), is_abandoned, tell) for rank in range(world_size)]
    manifest = Manifest(
        progress=progress,
        world_size=world_size,
        zero_stage=contents.zero_stage,
        model=contents.model,
        recipe_sha256=contents.recipe_sha256,
        kinds=contents.kinds,
        parameters=stored_parameters(contents.shapes, [report["parts"] for report in reports]),
        files={name: written for report in reports for name, written in report["files"].items()},
    )
    for rank in range(world_size):
        (unfinished / report_file(rank)).unlink()
    tell(f"writing {unfinished / MANIFEST}")
    fault_point("checkpoint.before_manifest", progress.step)
    write_durably(unfinished / MANIFEST, manifest.dump())
    fsync_folder(unfinished)
    fault_point("checkpoint.before_rename", progress.step)
    checkpoints = unfinished.parent
    finished = step_folder(checkpoints, progress.step)
    if finished.exists():  # was rejected, or a rollback went back beyond it
        remove(finished)
    unfinished.rename(finished)
    fsync_folder(checkpoints)
    fault_point("checkpoint.renamed", progress.step)


def awaited_report(path: Path, is_abandoned: threading.Event, tell: Tell) -> dict[str, Any]:
    tell(f"waiting for {path}")
    while not path.exists():
        if is_abandoned.wait(POLL_SECONDS):
            raise AbandonedError(str(path))
    return unsealed(path.read_bytes())


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
