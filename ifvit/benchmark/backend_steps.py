"""A training step of the four cells with each attention backend that is right here: what the choice is worth."""

from collections.abc import Sequence
from typing import Any

import torch

from ifvit.benchmark.checked_cells import cell_recipe
from ifvit.benchmark.four_cells import fresh_memory
from ifvit.benchmark.step_time import cell_reports, measure_steps
from ifvit.benchmark.synthetic_training import SyntheticTraining, deepspeed_engine, with_batch_size
from ifvit.model.attention import BACKENDS
from ifvit.model.attention_check import attention_calls, backend_failure
from ifvit.runtime.devices import TRAINING_DTYPES


def measure_backends(
    cells: Sequence[str],
    device: torch.device,
    batch_size: int,
    windows: int,
    steps_per_window: int,
    *,
    is_compiled: bool,
) -> dict[str, Any]:
    """By cell, in bf16 at ZeRO 1: each backend's step as `ifvit bench step` reports it, and why others cannot be used.

    The backends of a cell take turns. The process group must exist.
    """
    compiled = f"runtime.compile={'true' if is_compiled else 'false'}"
    found = {}
    for cell in cells:
        fresh_memory(device)
        recipe = with_batch_size(cell_recipe(cell, device, compiled), batch_size)
        calls = attention_calls(recipe.model, batch_size)
        dtype = TRAINING_DTYPES[recipe.train.precision]
        failures = {name: backend_failure(name, calls, dtype, device) for name in BACKENDS}
        trainings = {
            name: SyntheticTraining(
                with_batch_size(cell_recipe(cell, device, compiled, f"runtime.attention_backend={name}"), batch_size),
                device,
                deepspeed_engine,
            )
            for name, failure in failures.items()
            if failure is None
        }
        times = measure_steps(trainings, windows, steps_per_window)
        fastest = min(times, key=lambda name: times[name].step_seconds)
        found[cell] = {
            "backends": cell_reports(trainings, times),
            "fastest": fastest,
            "unavailable": {name: failure for name, failure in failures.items() if failure is not None},
        }
        del trainings  # before the next cell's
    return {"failure": None, "cells": found}
