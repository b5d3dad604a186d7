"""How many bytes a training step holds at once beside its weights: counted on the meta device, where nothing is held.

Every operation of the forward and the backward pass runs with shapes alone, and every storage it makes is followed
until it is freed. So the count holds for any model that runs: each fusion schedule, conditioning method and rate of
activation checkpointing. What a kernel takes for itself while it works is not in it.
"""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from ifvit.config.schema import ModelConfig
from ifvit.model import attention


@dataclass(frozen=True)
class StepMemory:
    """Of one micro-batch, in bytes, without weights, gradients of weights, and the batch itself."""

    num_operations: int  # that make a tensor, in both passes: about as many kernels are started
    kept: int  # what the forward pass leaves for the backward pass
    peak: int  # the most at any time in both


class LiveBytes(TorchDispatchMode):
    """Within the block, `now` is the number of bytes of all tensors made in it that are still alive, `peak` its most,
    and `num_operations` how many storages were made.

    Storages of `known` tensors are not counted, so neither are views of them.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = self.num_operations = 0
        self.followed = WeakIdKeyDictionary({tensor.untyped_storage(): None for tensor in known})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.follow(tensor.untyped_storage())
        return result

    def follow(self, storage: torch.UntypedStorage) -> None:
        if storage not in self.followed:
            self.followed[storage] = None
            self.num_operations += 1
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.forget, storage.nbytes())

    def forget(self, num_bytes: int) -> None:
        self.now -= num_bytes


class FusedAttention(torch.autograd.Function):
    """What flash and memory-efficient attention keep: query, key, value, output and one float32 per row; no scores."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        log_sum = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, log_sum)
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, ...]:
        query, key, value, _, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def fused_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    output: Tensor = FusedAttention.apply(query, key, value)
    return output


def step_memory(model: nn.Module, shape: ModelConfig, micro_batch_size: int, *, is_attention_fused: bool) -> StepMemory:
    """Of `model`, a UViT of `shape` on the meta device in the dtype it trains in, and one forward and backward pass.

    Gradients of weights are dropped as soon as they are there: where they are kept is the optimiser's matter.
    """
    dtype = next(model.parameters()).dtype
    with torch.device("meta"):
        latents = torch.empty(micro_batch_size, shape.in_channels, shape.sample_size, shape.sample_size, dtype=dtype)
        text = torch.empty(micro_batch_size, shape.num_text_tokens, shape.text_hidden_size, dtype=dtype)
        timesteps = torch.ones(micro_batch_size)
        noise = torch.empty_like(latents, dtype=torch.float32)
    hooks = [parameter.register_post_accumulate_grad_hook(drop_gradient) for parameter in model.parameters()]
    live = LiveBytes([*model.parameters(), *model.buffers(), latents, text, timesteps, noise])
    with attention.backend(fused_attention if is_attention_fused else attention.math_attention), live:
        loss = F.mse_loss(model(latents, timesteps, text).float(), noise)
        kept = live.now
        loss.backward()
    for hook in hooks:
        hook.remove()
    return StepMemory(live.num_operations, kept, live.peak)


def drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None
