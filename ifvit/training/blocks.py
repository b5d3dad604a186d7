"""What is done to single blocks of the model from outside: recomputation and compilation."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ifvit.model.uvit import UViT


def blocks_of(model: UViT) -> list[nn.Module]:
    """The transformer blocks in the order of the forward pass, text blocks first."""
    return [*model.text_blocks, *model.in_blocks, model.mid_block, *model.out_blocks]


def largest_block(model: UViT) -> int:
    """Values in the parameters of the block that has the most."""
    return max(sum(parameter.numel() for parameter in block.parameters()) for block in blocks_of(model))


def evenly_spread(blocks: Sequence[nn.Module], rate: float) -> list[nn.Module]:
    """`rate` of the blocks, rounded."""
    counts = [int(number * rate + 0.5) for number in range(len(blocks) + 1)]
    return [block for block, before, after in zip(blocks, counts, counts[1:], strict=False) if after > before]


def prepare_blocks(model: UViT, *, recomputed_share: float, is_compiled: bool) -> None:
    """Replace the blocks' forward passes in place; parameters keep their names, results their values.

    DeepSpeed's hooks are called around `forward`: at stage 3 a block's weights are there for all of it.
    """
    blocks = blocks_of(model)
    if is_compiled:
        for block in blocks:
            block.forward = torch.compile(block.forward)
    for block in evenly_spread(blocks, recomputed_share):
        block.forward = recomputed(block.forward)


def recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward`, whose activations are not kept: backward computes them again. The model draws no random numbers."""

    def call(*arguments: Any) -> Any:
        return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False)

    return call
