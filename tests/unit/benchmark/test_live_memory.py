"""What a step holds at once: the count on the meta device against sums by hand."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ifvit.benchmark.live_memory import LiveBytes
from ifvit.benchmark.step_work import step_work
from ifvit.config.loading import load_recipe
from ifvit.model.uvit import UViT

COCO256 = Path(__file__).parents[3] / "recipes/coco256"
# B x D x 2 bytes x (norm, K and V of the text) + what joins text to K and V, in each of 13 and 5 fused blocks.
TEXT_OF_A_BLOCK = 256 * 512 * 2 * (77 + 2 * (257 + 77)) / 1e9


@pytest.mark.parametrize(
    "cell, rough_gb, num_blocks_that_copy",
    [
        ("concat_early", 19.3, 0),
        ("concat_intermediate", 16.8, 0),
        ("cross_early", 14.8, 13),
        ("cross_intermediate", 15.1, 5),
    ],
)
def test_activations_of_the_papers_cells(cell: str, rough_gb: float, num_blocks_that_copy: int) -> None:
    """performance.md's rough sums leave out what cross-attention keeps of the text in each fused block."""
    recipe = load_recipe(COCO256 / f"{cell}.yaml")
    with torch.device("meta"):
        model = UViT(recipe.model).to(torch.bfloat16)
    measured = step_work(model, recipe.model, 256, is_attention_fused=True)
    assert measured.kept / 1e9 == pytest.approx(rough_gb + num_blocks_that_copy * TEXT_OF_A_BLOCK, rel=0.04)
    assert measured.kept < measured.peak < 1.05 * measured.kept


def test_written_out_attention_keeps_its_scores_too() -> None:
    recipe = load_recipe(COCO256 / "concat_early.yaml")
    with torch.device("meta"):
        model = UViT(recipe.model)
    fused, written_out = (step_work(model, recipe.model, 1, is_attention_fused=fused) for fused in (True, False))
    rows = 13 * 8 * 334  # blocks, heads, rows
    assert written_out.kept - fused.kept == rows * 4 * (334 - 1)  # a float32 per column for one per row


def test_only_what_is_alive_counts() -> None:
    weight = nn.Parameter(torch.empty(8, 8, device="meta"))
    x = torch.empty(4, 8, device="meta")
    with LiveBytes(weight.device, [weight, x]) as live:
        y = x @ weight.t()  # a view of what is known, and 4 x 8 float32
        assert live.now == live.peak == 128
        z = y.relu() + 1  # two more; the first has no name and is kept for backward
        assert live.now == 3 * 128
        del z  # and what was kept for it
        assert (live.now, live.peak) == (128, 3 * 128)


def test_only_what_is_on_the_device_counts() -> None:
    with LiveBytes(torch.device("cpu")) as live:
        tensors = torch.zeros(8), torch.zeros(1000, device="meta")
    assert live.now == live.peak == sum(tensor.nbytes for tensor in tensors[:1])


def test_gradients_come_as_activations_go() -> None:
    recipe = load_recipe(COCO256 / "cross_intermediate.yaml")
    with torch.device("meta"):
        model = UViT(recipe.model)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    few, many = (step_work(model, recipe.model, size, is_attention_fused=True) for size in (1, 8))
    assert few.kept < weights < many.kept
    for step in (few, many):
        assert step.backward[-1][1] == weights
        assert step.peak_with_gradients(0) == step.peak
        assert max(step.peak, weights) <= step.peak_with_gradients(1) < step.peak + weights
    assert many.peak_with_gradients(1) < 1.02 * many.peak  # the gradients find room that activations left
