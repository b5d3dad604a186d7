"""The parts of `gpu_check`, and how much each measures."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ifvit.benchmark.attention_kernels import check_attention
from ifvit.benchmark.backend_steps import measure_backends
from ifvit.benchmark.checked_cells import CELLS
from ifvit.benchmark.four_cells import measure_cells
from ifvit.benchmark.host_syncs import check_host_syncs
from ifvit.benchmark.loss_parity import check_parity, check_zero_stages
from ifvit.benchmark.main_job import check_main_job
from ifvit.benchmark.pinned_loader import check_loader
from ifvit.benchmark.save_time import check_saves
from ifvit.benchmark.scenes_cells import check_scenes_cells
from ifvit.benchmark.training_promises import check_promises

SYNC_STEPS = 20


@dataclass(frozen=True)
class Sizes:
    """How much each part measures."""

    batch_size: int
    windows: int
    steps: int  # in a window
    backend_windows: int
    backend_cells: int
    parity_steps: int
    stage_steps: int
    promise_cases: int
    saves: int
    batches: int
    scenes_steps: int
    scenes_cells: int

    def with_batch_size(self, batch_size: int) -> "Sizes":
        return replace(self, batch_size=batch_size)


Part = Callable[[torch.device, Sizes], dict[str, Any]]


def cells(device: torch.device, sizes: Sizes, *, is_compiled: bool = False) -> dict[str, Any]:
    return measure_cells(device, sizes.batch_size, sizes.windows, sizes.steps, is_compiled=is_compiled)


def backends(device: torch.device, sizes: Sizes) -> dict[str, Any]:
    names = CELLS[-sizes.backend_cells :]
    return measure_backends(names, device, sizes.batch_size, sizes.backend_windows, sizes.steps, is_compiled=False)


def compiled_backends(device: torch.device, sizes: Sizes) -> dict[str, Any]:
    return measure_backends(CELLS[-1:], device, sizes.batch_size, sizes.backend_windows, sizes.steps, is_compiled=True)


def promises(device: torch.device, sizes: Sizes) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ifvit-promises-") as folder:
        return check_promises(device, Path(folder), sizes.promise_cases)


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


# In the order of what is worth most, should time run out. Each returns its results, with `failure`: a text, or None.
# MEASUREMENTS share this process's group; commands, before and after it, make their own.
FIRST_COMMANDS: dict[str, Part] = {"main_job": lambda device, sizes: check_main_job()}
MEASUREMENTS: dict[str, Part] = {
    "attention": lambda device, sizes: check_attention(device, sizes.batch_size),
    "cells": cells,
    "backends": backends,
    "parity": lambda device, sizes: check_parity(device, sizes.parity_steps),
    "zero_stages": lambda device, sizes: check_zero_stages(device, sizes.stage_steps),
    "promises": promises,
    "checkpoints": checkpoints,
    "host_syncs": lambda device, sizes: check_host_syncs(device, SYNC_STEPS),
    "loader": lambda device, sizes: check_loader(device, sizes.batches),
    "compiled": lambda device, sizes: cells(device, sizes, is_compiled=True),
    "compiled_backends": compiled_backends,
}
LAST_COMMANDS: dict[str, Part] = {"scenes_cells": scenes_cells}
PARTS = FIRST_COMMANDS | MEASUREMENTS | LAST_COMMANDS
