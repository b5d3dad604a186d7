"""Whole parameters: from the parts that the ranks hold, and from the first rank at the start."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ifvit.training.fragments import Fragment, parameter_shapes


def gather_parameters(
    module: nn.Module, fragments: Sequence[Fragment], values: Sequence[Tensor], *, is_sharded: bool
) -> dict[str, Tensor]:
    """Full float32 tensors by parameter name from `values`, one (numel,) per fragment, on the module's device.

    Collective when sharded.
    """
    shapes = parameter_shapes(module)
    offsets, total = {}, 0
    for name, shape in shapes.items():
        offsets[name] = total
        total += shape.numel()
    buffer = torch.zeros(total, dtype=torch.float32, device=next(module.parameters()).device)
    for fragment, value in zip(fragments, values, strict=True):
        buffer.narrow(0, offsets[fragment.name] + fragment.start, value.numel()).copy_(value)
    if is_sharded:
        dist.all_reduce(buffer)  # each element is held by one rank and zero on the others: the sum is exact
    return {name: buffer.narrow(0, offsets[name], shape.numel()).view(shape) for name, shape in shapes.items()}


@torch.no_grad()
def copy_from_first_rank(module: nn.Module) -> None:
    """Give the parameters rank 0's values, bit for bit. Collective."""
    for parameter in module.parameters():
        dist.broadcast(parameter.data, src=0)
