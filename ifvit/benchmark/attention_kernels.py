"""Every attention backend at the shapes of the paper's four cells: right or not, and how fast."""

import statistics
from collections import Counter
from typing import Any

import torch

from ifvit.benchmark.checked_cells import CELLS, cell_recipe
from ifvit.model.attention import BACKENDS
from ifvit.model.attention_check import (
    AttentionCall,
    attention_calls,
    backend_failure,
    largest_errors,
    make_probes,
    output_and_gradients,
)
from ifvit.model.attention_choice import step_seconds
from ifvit.runtime.devices import TRAINING_DTYPES


def check_attention(device: torch.device, batch_size: int) -> dict[str, Any]:
    """A row per precision, shape and backend: why it fails or None, largest error, seconds forward and backward."""
    calls: set[AttentionCall] = set()
    for cell in CELLS:
        calls |= attention_calls(cell_recipe(cell, device).model, batch_size).keys()
    rows = []
    for precision, dtype in TRAINING_DTYPES.items():
        for call in sorted(calls, key=lambda call: (call.query.shape, call.key.shape, call.key.stride)):
            failures = {name: backend_failure(name, [call], dtype, device) for name in BACKENDS}
            right = [name for name, failure in failures.items() if failure is None]
            seconds = step_seconds(right, Counter([call]), dtype, device)
            for name, failure in failures.items():
                row: dict[str, Any] = {"backend": name, "precision": precision, "shape": call.text, "failure": failure}
                if failure is None:
                    row |= {"max_error": max_error(name, call, dtype, device), "seconds": seconds[name]}
                rows.append(row)
    return {"failure": None, "batch_size": batch_size, "rows": rows, "fastest": fastest(rows)}


def max_error(name: str, call: AttentionCall, dtype: torch.dtype, device: torch.device) -> float:
    """The largest relative error of a row of output or gradients."""
    probes, cotangent = make_probes(call, dtype, device)
    return max(largest_errors(output_and_gradients(BACKENDS[name], probes, cotangent), probes, cotangent))


def fastest(rows: list[dict[str, Any]]) -> dict[str, str]:
    """By precision: the right backend with the smallest median of seconds over the shapes."""
    names: dict[str, str] = {}
    for precision in TRAINING_DTYPES:
        seconds: dict[str, list[float]] = {}
        for row in rows:
            if row["precision"] == precision and row["failure"] is None:
                seconds.setdefault(row["backend"], []).append(row["seconds"])
        names[precision] = min(seconds, key=lambda name: statistics.median(seconds[name]))
    return names
