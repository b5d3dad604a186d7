"""What autograd keeps of weights for backward, at ZeRO stage 3: where they are to be found, not the values.

DeepSpeed takes a block's gathered weights away after its forward pass and gathers them again for its backward pass.
A view that is kept for backward, such as the transpose that a linear layer multiplies with, would hold the first copy.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


class WeightView(NamedTuple):
    """A view of `weight`, wherever its values lie by then."""

    weight: nn.Parameter
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int  # elements behind the weight's first


def without_saved_weights(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward`, for whose backward the weights must be there again, with the same values."""

    def call(*arguments: Any) -> Any:
        with saved_tensors_hooks(keep, found_again):
            return forward(*arguments)

    return call


def keep(saved: Tensor) -> Tensor | WeightView:
    if isinstance(saved, nn.Parameter):
        return saved  # its `data` are what is there by then
    weight = saved._base
    if isinstance(weight, nn.Parameter):
        return WeightView(weight, saved.shape, saved.stride(), int(saved.storage_offset() - weight.storage_offset()))
    return saved.detach()  # with its history, an operation's own result would keep itself alive


def found_again(kept: Tensor | WeightView) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    return kept.weight.as_strided(kept.shape, kept.stride, kept.weight.storage_offset() + kept.offset)
