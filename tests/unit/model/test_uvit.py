"""The backbone: the paper's sizes to the parameter, the plan it follows, its tokens."""

from pathlib import Path

import pytest
import torch

from ifvit.config.fusion import IntermediateFusion
from ifvit.config.loading import load_recipe
from ifvit.config.schema import ModelConfig
from ifvit.model.embeddings import LatentHead, timestep_embedding
from ifvit.model.flops import count_flops
from ifvit.model.uvit import UViT

PAPER = {
    "concat_early": (44_692_644, 29.489, 32.459),
    "concat_intermediate": (47_843_492, 25.774, 28.011),
    "cross_early": (44_692_644, 23.756, 26.041),
    "cross_intermediate": (47_843_492, 23.594, 25.567),
}  # facts.md, section 1: parameters, 2 x MACs of linears and convolutions, with attention products


@pytest.mark.parametrize("cell", PAPER)
def test_parameters_and_flops_of_the_paper(cell: str, repository: Path) -> None:
    counted = count_flops(load_recipe(repository / f"recipes/coco256/{cell}.yaml").model)
    parameters, gflops, gflops_with_attention = PAPER[cell]
    assert counted["parameters"] == parameters
    assert counted["gflops"] == pytest.approx(gflops, rel=1e-3)
    assert counted["gflops_with_attention"] == pytest.approx(gflops_with_attention, rel=1e-3)


@pytest.mark.parametrize(
    "num_text_blocks, num_image_blocks, parameters", [(0, 4, 44_692_644), (1, 0, 47_843_492), (1, 4, 47_843_492)]
)
def test_parameters_of_the_ablation(num_text_blocks: int, num_image_blocks: int, parameters: int) -> None:
    fusion = IntermediateFusion(num_image_blocks=num_image_blocks, num_text_blocks=num_text_blocks)
    with torch.device("meta"):
        model = UViT(ModelConfig(fusion=fusion))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def closed_form_gflops(config: ModelConfig) -> tuple[float, float]:
    """2 x MACs by hand: linears and convolutions, then the two products inside each attention."""
    width, text_tokens, image_tokens = config.hidden_size, config.num_text_tokens, config.num_image_tokens
    side, channels = config.sample_size, config.in_channels
    linear = (image_tokens - 1) * width * config.patch_size**2 * channels * 2  # patch embedding and head
    linear += text_tokens * config.text_hidden_size * width + side * side * 9 * channels * channels
    attention = 0
    plan, is_concat = config.plan, config.conditioning == "concat"
    blocks = [("text", False)] * plan.num_text_blocks + [(sees, False) for sees in plan.in_path]
    blocks += [("fused", False)] + [(sees, True) for sees in plan.out_path]
    for sees, takes_skip in blocks:
        updated = {"text": text_tokens, "image": image_tokens, "fused": image_tokens + text_tokens * is_concat}[sees]
        read = updated if sees != "fused" else image_tokens + text_tokens
        per_token = 1 + 2 * config.mlp_ratio + 2 * takes_skip + 1  # query, MLP, skip, output projection
        linear += width * width * (updated * per_token + read * 2)  # keys and values for every row that is read
        attention += 2 * updated * read * width
    return 2 * linear / 1e9, 2 * attention / 1e9


@pytest.mark.parametrize("cell", PAPER)
def test_flops_against_a_closed_form(cell: str, repository: Path) -> None:
    config = load_recipe(repository / f"recipes/coco256/{cell}.yaml").model
    linear, attention = closed_form_gflops(config)
    counted = count_flops(config)
    assert counted["gflops"] == pytest.approx(linear, rel=1e-9)
    assert counted["gflops_with_attention"] == pytest.approx(linear + attention, rel=1e-9)


def test_timestep_embedding_is_cosine_then_sine_with_period_ten_thousand() -> None:
    embedding = timestep_embedding(torch.tensor([0, 7]), 8)
    frequencies = 10_000.0 ** -(torch.arange(4) / 4)
    torch.testing.assert_close(embedding[0], torch.tensor([1.0] * 4 + [0.0] * 4))
    torch.testing.assert_close(embedding[1], torch.cat(((7 * frequencies).cos(), (7 * frequencies).sin())))


def test_head_orders_patch_row_patch_column_channel() -> None:
    config = ModelConfig(sample_size=4, patch_size=2, in_channels=3, hidden_size=12, num_attention_heads=2)
    head = LatentHead(config)
    head.norm, head.conv = torch.nn.Identity(), torch.nn.Identity()
    torch.nn.init.eye_(head.linear.weight)
    torch.nn.init.zeros_(head.linear.bias)
    latents = torch.randn(1, 3, 4, 4)
    tokens = [
        latents[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].permute(1, 2, 0).flatten()
        for row in range(2)
        for column in range(2)
    ]
    torch.testing.assert_close(head(torch.stack(tokens)[None]), latents)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = UViT(ModelConfig(sample_size=8, hidden_size=256, depth=2, fusion=IntermediateFusion(num_image_blocks=1)))
    assert model.mid_block.block.to_qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.image_position.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.text_position.std().item() == pytest.approx(0.02, rel=0.05)
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith(("to_out.bias", "mlp.0.bias")))
    assert model.mid_block.block.to_qkv.bias is None


def test_time_embedding_mlp_and_qkv_bias_are_options_that_work() -> None:
    config = ModelConfig(sample_size=4, hidden_size=16, num_attention_heads=2, depth=2, fusion={"schedule": "early"},
                         qkv_bias=True, time_embedding_mlp=True, text_hidden_size=8, num_text_tokens=3)  # fmt: skip
    model = UViT(config)
    torch.nn.init.normal_(model.mid_block.block.to_qkv.bias)
    output = model(torch.randn(1, 4, 4, 4), torch.tensor([5]), torch.randn(1, 3, 8))
    output.sum().backward()
    assert model.mid_block.block.to_qkv.bias.grad.any()
    assert model.time_mlp[0].weight.grad.any()
