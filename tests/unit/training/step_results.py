"""Recipes and steps for what watches a run."""

from pathlib import Path

import torch
from torch import Tensor

from ifvit.config.schema import Recipe
from ifvit.training.state import StepResult
from tests.drawn_coco import tiny_recipe


def recipe_of(*overrides: str) -> Recipe:
    return tiny_recipe(Path("/nowhere"), Path("/nowhere"), *overrides)


def result_of(sample_losses: Tensor | None = None, timesteps: Tensor | None = None) -> StepResult:
    sample_losses = torch.ones(1) if sample_losses is None else sample_losses
    timesteps = torch.zeros(len(sample_losses), dtype=torch.int64) if timesteps is None else timesteps
    return StepResult(
        loss=sample_losses.mean(),
        grad_norm=torch.ones(()),
        is_skipped=torch.zeros((), dtype=torch.bool),
        learning_rate=1e-3,
        sample_losses=sample_losses,
        timesteps=timesteps,
        sample_ids=torch.arange(len(sample_losses)),
    )
