"""Which blocks are computed again, and that this changes nothing but when they are computed."""

import pytest
import torch
from torch import Tensor, nn

from ifvit.config.schema import ModelConfig
from ifvit.model.uvit import UViT
from ifvit.training.blocks import blocks_of, evenly_spread, prepare_blocks

CONFIG = ModelConfig.model_validate(
    {
        "sample_size": 4,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "depth": 4,
        "fusion": {"schedule": "intermediate", "num_image_blocks": 1, "num_text_blocks": 1},
        "text_hidden_size": 6,
        "num_text_tokens": 3,
    }
)


@pytest.mark.parametrize(
    "rate, expected", [(0.0, []), (0.25, [1, 5]), (0.5, [0, 2, 4, 6]), (1.0, [0, 1, 2, 3, 4, 5, 6, 7])]
)
def test_the_share_is_spread_evenly(rate: float, expected: list[int]) -> None:
    blocks = [nn.Identity() for _ in range(8)]
    assert [blocks.index(block) for block in evenly_spread(blocks, rate)] == expected


def test_backward_computes_the_chosen_blocks_again() -> None:
    gradients, calls, names = [], [], []
    for share in (0.0, 0.5):
        torch.manual_seed(0)
        model = UViT(CONFIG)
        counted: list[int] = []
        for index, block in enumerate(blocks_of(model)):
            count_calls(block, index, counted)
        prepare_blocks(model, recomputed_share=share, is_compiled=False)
        model(torch.ones(2, 4, 4, 4), torch.tensor([3, 900]), torch.ones(2, 3, 6)).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        calls.append([counted.count(index) for index in range(6)])
        names.append([name for name, _ in model.named_parameters()])
    assert calls == [[1, 1, 1, 1, 1, 1], [2, 1, 2, 1, 2, 1]]
    assert names[0] == names[1]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True) if a is not None and b is not None)


def count_calls(block: nn.Module, index: int, counted: list[int]) -> None:
    forward = block.forward

    def call(*arguments: Tensor) -> Tensor:
        counted.append(index)
        return forward(*arguments)

    block.forward = call
