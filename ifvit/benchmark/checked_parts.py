"""The parts of `gpu_check`, in the order of what is worth most, should time run out."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ifvit.benchmark.attention_kernels import check_attention
from ifvit.benchmark.checked_cells import CELLS
from ifvit.benchmark.four_cells import measure_cells
from ifvit.benchmark.host_syncs import check_host_syncs
from ifvit.benchmark.loss_parity import check_parity, check_zero_stages
from ifvit.benchmark.main_job import check_main_job
from ifvit.benchmark.pinned_loader import check_loader
from ifvit.benchmark.save_time import check_saves
from ifvit.benchmark.scenes_cells import check_scenes_cells

SYNC_STEPS = 20


@dataclass(frozen=True)
class Sizes:
    """How much each part measures."""

    batch_size: int
    windows: int
    steps: int  # in a window
    parity_steps: int
    stage_steps: int
    saves: int
    batches: int
    scenes_steps: int
    scenes_cells: int

    def with_batch_size(self, batch_size: int) -> "Sizes":
        return replace(self, batch_size=batch_size)


Part = Callable[[torch.device, Sizes], dict[str, Any]]


def cells(device: torch.device, sizes: Sizes, *, is_compiled: bool = False) -> dict[str, Any]:
    return measure_cells(device, sizes.batch_size, sizes.windows, sizes.steps, is_compiled=is_compiled)


def checkpoints(device: torch.device, sizes: Sizes) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ifvit-saves-") as folder:
        return check_saves(device, Path(folder), sizes.saves)


def scenes_cells(device: torch.device, sizes: Sizes) -> dict[str, Any]:
    return check_scenes_cells(
        CELLS[-sizes.scenes_cells :],
        steps=sizes.scenes_steps,
        batch_size=sizes.batch_size,
        num_images=2 * sizes.batch_size if device.type == "cuda" else 4,
        precision="bf16",
    )


# Each returns its results, with `failure`: a text, or None. The first ones share this process's group.
MEASUREMENTS: dict[str, Part] = {
    "attention": lambda device, sizes: check_attention(device, sizes.batch_size),
    "cells": cells,
    "parity": lambda device, sizes: check_parity(device, sizes.parity_steps),
    "zero_stages": lambda device, sizes: check_zero_stages(device, sizes.stage_steps),
    "checkpoints": checkpoints,
    "host_syncs": lambda device, sizes: check_host_syncs(device, SYNC_STEPS),
    "loader": lambda device, sizes: check_loader(device, sizes.batches),
    "compiled": lambda device, sizes: cells(device, sizes, is_compiled=True),
}
COMMANDS: dict[str, Part] = {"main_job": lambda device, sizes: check_main_job(), "scenes_cells": scenes_cells}
PARTS = MEASUREMENTS | COMMANDS
