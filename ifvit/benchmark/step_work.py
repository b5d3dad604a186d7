"""The work and the memory of one micro-batch, forward and backward, counted on the meta device."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifvit.benchmark.live_memory import LiveBytes, Operation
from ifvit.config.schema import ModelConfig
from ifvit.model import attention

PRODUCTS_BACKWARD = 4  # of fused attention, without those that it computes again; forward has two


@dataclass(frozen=True)
class StepWork:
    """Bytes are without weights, gradients of weights, and the batch itself.

    Attributes:
        operations: of both passes.
        kept: bytes that the forward pass leaves for the backward pass.
        peak: the most bytes at any time in both.
        backward: bytes alive when each weight's gradient is made, and those of all such gradients so far.
    """

    operations: tuple[Operation, ...]
    kept: int
    peak: int
    backward: tuple[tuple[int, int], ...]

    @property
    def flops(self) -> int:
        """Of matrix products and convolutions, recomputed ones included."""
        return sum(operation.flops for operation in self.operations)

    def peak_with_gradients(self, share: float) -> int:
        """`peak` where `share` of the gradients stay: they come as activations go."""
        return max(self.peak, *(int(alive + share * gradients) for alive, gradients in self.backward))

    def floor_seconds(self, flops_per_second: float, bytes_per_second: float, launch_seconds: float) -> float:
        """If each operation took what its FLOPs take, or its bytes, or its launch: whatever is longest."""
        return sum(
            max(operation.flops / flops_per_second, operation.num_bytes / bytes_per_second, launch_seconds)
            for operation in self.operations
        )


class FusedAttention(torch.autograd.Function):
    """What flash and memory-efficient attention keep: query, key, value, output and one float32 per row; no scores."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, live: LiveBytes) -> Tensor:
        output = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        log_sum = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, log_sum)
        ctx.live = live
        live.operations.append(Operation(2 * product_flops(query, key), num_bytes(query, key, value, output)))
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, _ = ctx.saved_tensors
        moved = 2 * num_bytes(query, key, value, output)
        ctx.live.operations.append(Operation(PRODUCTS_BACKWARD * product_flops(query, key), moved))
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None


def product_flops(query: Tensor, key: Tensor) -> int:
    return 2 * query.numel() * key.shape[-2]


def num_bytes(*tensors: Tensor) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def step_work(model: nn.Module, shape: ModelConfig, micro_batch_size: int, *, is_attention_fused: bool) -> StepWork:
    """Of `model`, a UViT of `shape` on the meta device in the dtype it trains in.

    Gradients of weights are dropped as soon as they are there: where they are kept is the optimiser's matter.
    """
    dtype = next(model.parameters()).dtype
    with torch.device("meta"):
        latents = torch.empty(micro_batch_size, shape.in_channels, shape.sample_size, shape.sample_size, dtype=dtype)
        text = torch.empty(micro_batch_size, shape.num_text_tokens, shape.text_hidden_size, dtype=dtype)
        timesteps = torch.ones(micro_batch_size)
        noise = torch.empty_like(latents, dtype=torch.float32)
    live = LiveBytes(torch.device("meta"), [*model.parameters(), *model.buffers(), latents, text, timesteps, noise])

    backward: list[tuple[int, int]] = []

    def drop_gradient(parameter: Tensor) -> None:
        backward.append((live.now - parameter.nbytes, parameter.nbytes + (backward[-1][1] if backward else 0)))
        parameter.grad = None

    hooks = [parameter.register_post_accumulate_grad_hook(drop_gradient) for parameter in model.parameters()]

    def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output: Tensor = FusedAttention.apply(query, key, value, live)
        return output

    with attention.backend(fused if is_attention_fused else attention.math_attention), live:
        loss = F.mse_loss(model(latents, timesteps, text).float(), noise)
        kept = live.now
        loss.backward()
    for hook in hooks:
        hook.remove()
    return StepWork(tuple(live.operations), kept, live.peak, tuple(backward))
