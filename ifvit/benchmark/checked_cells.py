"""The paper's four cells as the parts of `gpu_check` train them; on a CPU, to check these parts, tiny ones."""

from pathlib import Path

import torch

import ifvit
from ifvit.config.loading import load_recipe
from ifvit.config.schema import Recipe

RECIPES = Path(ifvit.__file__).parents[1] / "recipes/coco256"
CELLS = ("concat_early", "concat_intermediate", "cross_early", "cross_intermediate")
TINY = ["model.hidden_size=32", "model.num_attention_heads=2", "model.sample_size=8", "model.num_text_tokens=5"]


def cell_recipe(cell: str, device: torch.device, *overrides: str) -> Recipe:
    """The recipe of `cell`, with `overrides` of the form section.field=value."""
    return load_recipe(RECIPES / f"{cell}.yaml", [*overrides, *(TINY if device.type == "cpu" else ())])
