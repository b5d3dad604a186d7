"""Contract of every conditioning method under every fusion schedule. A newly registered one is covered."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from ifvit.config.fusion import EarlyFusion, FusionSchedule, IntermediateFusion
from ifvit.config.schema import ModelConfig
from ifvit.model.conditioning import CONDITIONING
from ifvit.model.uvit import UViT

METHODS = sorted(CONDITIONING)
SCHEDULES = get_args(get_args(FusionSchedule)[0])
CELLS = [(method, schedule) for method in METHODS for schedule in SCHEDULES]
SIZE = {
    "sample_size": 8,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "depth": 6,
    "text_hidden_size": 16,
    "num_text_tokens": 5,
}
Inputs = tuple[Tensor, Tensor, Tensor]


def tiny_uvit(conditioning: str, fusion: FusionSchedule) -> UViT:
    torch.manual_seed(0)
    return UViT(ModelConfig(conditioning=conditioning, fusion=fusion, **SIZE))


def schedule_with_separate_blocks(schedule: type[FusionSchedule]) -> FusionSchedule:
    return schedule(num_image_blocks=2) if schedule is IntermediateFusion else schedule()


@pytest.fixture(params=CELLS, ids=lambda cell: f"{cell[0]}-{cell[1].__name__}")
def model(request: pytest.FixtureRequest) -> UViT:
    method, schedule = request.param
    return tiny_uvit(method, schedule_with_separate_blocks(schedule))


@pytest.fixture
def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 5, 16, generator=generator)
    return latents, torch.tensor([3, 700]), text


def test_recipe_names_exactly_the_methods_of_the_model() -> None:
    assert set(get_args(ModelConfig.model_fields["conditioning"].annotation)) == set(CONDITIONING)


def test_output_has_the_shape_of_the_latents(model: UViT, inputs: Inputs) -> None:
    assert model(*inputs).shape == inputs[0].shape


def test_text_changes_its_own_sample_and_no_other(model: UViT, inputs: Inputs) -> None:
    latents, timesteps, text = inputs
    edited = text + torch.tensor([1.0, 0.0])[:, None, None]
    before, after = model(latents, timesteps, text), model(latents, timesteps, edited)
    assert not torch.allclose(before[0], after[0])
    torch.testing.assert_close(before[1], after[1])


def test_every_parameter_gets_a_gradient(model: UViT, inputs: Inputs) -> None:
    model(*inputs).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_text_branch_is_the_same_at_every_time(model: UViT, inputs: Inputs) -> None:
    _, _, text = inputs
    seen: list[Tensor] = []
    model.mid_block.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[1]))
    for timestep in (1, 1000):
        model(inputs[0], torch.full((2,), timestep), text)
    reads_only = model.config.conditioning == "cross_attention"
    sees_no_image = model.config.fusion.schedule == "intermediate" and model.config.fusion.num_image_blocks == 3
    if reads_only or sees_no_image:
        assert torch.equal(seen[0], seen[1])
    else:
        assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("method", METHODS)
def test_intermediate_fusion_without_separate_blocks_is_early_fusion(method: str, inputs: Inputs) -> None:
    early = tiny_uvit(method, EarlyFusion())
    limit = tiny_uvit(method, IntermediateFusion(num_image_blocks=0, num_text_blocks=0))
    limit.load_state_dict(early.state_dict(), strict=True)
    torch.testing.assert_close(limit(*inputs), early(*inputs), rtol=0, atol=0)


@pytest.mark.parametrize("method, updates_text", [("concat", True), ("cross_attention", False)])
def test_what_a_fused_block_does_to_text(method: str, updates_text: bool) -> None:
    torch.manual_seed(0)
    block = CONDITIONING[method](ModelConfig(conditioning=method, fusion=EarlyFusion(), **SIZE), takes_skip=False)
    image, text = torch.randn(1, 3, 32), torch.randn(1, 2, 32)
    assert torch.equal(block(image, text)[1], text) is not updates_text


def test_cross_attention_asks_with_image_rows_and_answers_with_both() -> None:
    """One attention with (I) queries and (I + T) keys, against the same weights written out by hand."""
    torch.manual_seed(0)
    config = ModelConfig(conditioning="cross_attention", fusion=EarlyFusion(), **SIZE)
    block = CONDITIONING["cross_attention"](config, takes_skip=False).block
    image, text = torch.randn(2, 3, 32), torch.randn(2, 5, 32)
    weight_query, weight_key, weight_value = block.to_qkv.weight.chunk(3)
    both = block.norm1(torch.cat((image, text), dim=1))
    query = (block.norm1(image) @ weight_query.T).view(2, 3, 4, 8).transpose(1, 2)
    key, value = ((both @ weight.T).view(2, 8, 4, 8).transpose(1, 2) for weight in (weight_key, weight_value))
    attended = ((query @ key.transpose(-1, -2)) / 8**0.5).softmax(-1) @ value
    expected = image + block.to_out(attended.transpose(1, 2).reshape(2, 3, 32))
    expected = expected + block.mlp(block.norm2(expected))
    torch.testing.assert_close(block(image, context=text), expected, rtol=1e-5, atol=1e-6)


def test_skip_is_merged_as_hidden_then_skip() -> None:
    torch.manual_seed(0)
    block = CONDITIONING["concat"](
        ModelConfig(conditioning="concat", fusion=EarlyFusion(), **SIZE), takes_skip=True
    ).block
    hidden, skip = torch.randn(1, 3, 32), torch.randn(1, 3, 32)
    weight_hidden, weight_skip = block.skip_proj.weight.split(32, dim=1)
    merged = hidden @ weight_hidden.T + skip @ weight_skip.T + block.skip_proj.bias
    expected = merged + block.attend(merged, None)
    expected = expected + block.mlp(block.norm2(expected))
    torch.testing.assert_close(block(hidden, skip), expected, rtol=1e-5, atol=1e-6)
