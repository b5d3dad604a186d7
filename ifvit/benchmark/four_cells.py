"""The paper's four cells in bf16 at ZeRO 1, eager or compiled, in turns: what a step costs of each."""

import gc
from typing import Any

import torch

from ifvit.benchmark.checked_cells import CELLS, cell_recipe
from ifvit.benchmark.device_rates import memory_rate, product_rate
from ifvit.benchmark.step_time import cell_reports, measure_steps
from ifvit.benchmark.synthetic_training import SyntheticTraining, deepspeed_engine, with_batch_size


def measure_cells(
    device: torch.device, batch_size: int, windows: int, steps_per_window: int, *, is_compiled: bool
) -> dict[str, Any]:
    """As `ifvit bench step` reports them, and what the device's matrix products and memory reached beside them.

    Each cell's mfu is relative to those products. The process group must exist.
    """
    fresh_memory(device)
    compiled = f"runtime.compile={'true' if is_compiled else 'false'}"
    trainings = {
        cell: SyntheticTraining(
            with_batch_size(cell_recipe(cell, device, compiled), batch_size), device, deepspeed_engine
        )
        for cell in CELLS
    }
    times = measure_steps(trainings, windows, steps_per_window)
    products = product_rate(trainings[CELLS[0]].recipe, device) / 1e12
    cells = cell_reports(trainings, times)
    return {
        "failure": None,
        "steps": windows * steps_per_window,
        "product_tflops_per_second": products,
        "memory_gb_per_second": memory_rate(device) / 1e9,
        "cells": {
            cell: {**report, "mfu": report["model_tflops_per_second"] / products} for cell, report in cells.items()
        },
    }


def fresh_memory(device: torch.device) -> None:
    """Free what is no longer used: engines refer to themselves."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
