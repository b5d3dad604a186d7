"""What this process's device reaches: the rates that a step is compared with."""

import time
from collections.abc import Callable

import torch

from ifvit.config.schema import Recipe
from ifvit.model.attention_choice import synchronise
from ifvit.runtime.devices import TRAINING_DTYPES


def product_rate(recipe: Recipe, device: torch.device) -> float:
    """FLOPs per second of the MLP's first product at the recipe's micro-batch size."""
    shape = recipe.model
    dtype = TRAINING_DTYPES[recipe.train.precision]
    rows = recipe.train.micro_batch_size * shape.num_image_tokens
    tokens = torch.randn(rows, shape.hidden_size, device=device, dtype=dtype)
    weight = torch.randn(shape.hidden_size, int(shape.hidden_size * shape.mlp_ratio), device=device, dtype=dtype)
    return 2 * rows * weight.numel() / best_seconds(lambda: tokens @ weight, device)


def memory_rate(device: torch.device) -> float:
    """Bytes per second, read and written, of a copy that no cache holds."""
    source = torch.ones(64 * 2**20, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_seconds(lambda: target.copy_(source), device)


def best_seconds(work: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    work()
    times = []
    for _ in range(repeats):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times)
