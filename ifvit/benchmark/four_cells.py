"""The paper's four cells in bf16 at ZeRO 1, eager or compiled, in turns: what a step costs of each."""

import gc
from typing import Any

import torch

from ifvit.benchmark.checked_cells import CELLS, cell_recipe
from ifvit.benchmark.step_time import cell_reports, measure_steps
from ifvit.benchmark.synthetic_training import SyntheticTraining, deepspeed_engine, with_batch_size


def measure_cells(
    device: torch.device, batch_size: int, windows: int, steps_per_window: int, *, is_compiled: bool
) -> dict[str, Any]:
    """As `ifvit bench step` reports them. The process group must exist."""
    gc.collect()  # engines of the parts before this one refer to themselves
    if device.type == "cuda":
        torch.cuda.empty_cache()
    compiled = f"runtime.compile={'true' if is_compiled else 'false'}"
    trainings = {
        cell: SyntheticTraining(
            with_batch_size(cell_recipe(cell, device, compiled), batch_size), device, deepspeed_engine
        )
        for cell in CELLS
    }
    times = measure_steps(trainings, windows, steps_per_window)
    return {"failure": None, "steps": windows * steps_per_window, "cells": cell_reports(trainings, times)}
