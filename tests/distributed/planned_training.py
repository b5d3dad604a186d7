"""Steps of recipes beside their plans, inside the ranks of a pool."""

from pathlib import Path
from typing import Any

import torch

from ifvit.benchmark.plan import make_plan
from ifvit.benchmark.plan_check import Comparison, comparisons
from ifvit.benchmark.plan_measured import measure_training
from ifvit.benchmark.plan_request import Assumptions, PlanRequest
from ifvit.benchmark.planned_device import device_named
from ifvit.benchmark.synthetic_training import SyntheticTraining, deepspeed_engine
from ifvit.config.loading import load_recipe
from ifvit.runtime.distributed import Ranks
from tests.drawn_coco import tiny_recipe

CPU = torch.device("cpu")


def planned_and_measured(ranks: Ranks, overrides: list[str], folder: Path) -> list[Comparison]:
    recipe = tiny_recipe(Path("/nowhere"), Path("/nowhere"), *overrides)
    measured = measure_training(recipe, ranks, CPU, 1, folder)
    device = device_named("h200")
    assert device is not None
    return comparisons(make_plan(PlanRequest(recipe, device, 1, ranks.world_size, Assumptions())), vars(measured))


def two_steps(ranks: Ranks, recipe: Path, overrides: list[str]) -> dict[str, Any]:
    """How far the weights held here moved in each of two steps, and whether all of them are finite."""
    warm = load_recipe(recipe, [*overrides, "optimizer.warmup_steps=0"])  # else the first step has learning rate 0
    training = SyntheticTraining(warm, CPU, deepspeed_engine, ranks.world_size)
    moved = []
    for _ in range(2):
        before = [fragment.weight.clone() for fragment in training.engine.fragments]
        training.train_steps(1)
        after = [fragment.weight for fragment in training.engine.fragments]
        moved.append(max(float((a - b).abs().max()) for a, b in zip(after, before, strict=True)))
    finite = all(bool(fragment.weight.isfinite().all()) for fragment in training.engine.fragments)
    return {"moved": moved, "is_finite": finite, "num_fragments": len(training.engine.fragments)}
