"""Parameters and FLOPs of one forward pass, counted by torch's own counter on the meta device."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from ifvit.config.schema import ModelConfig
from ifvit.model import attention
from ifvit.model.uvit import UViT

ATTENTION_PRODUCTS = (torch.ops.aten.bmm, torch.ops.aten.baddbmm)


def count_flops(config: ModelConfig) -> dict[str, int | float]:
    """`parameters`; `gflops`: 2 x MACs of linears and convolutions, the paper's column; `gflops_with_attention`.

    Both are for one image and one forward pass; a training step costs three times as much.
    """
    with torch.device("meta"):
        model = UViT(config)
        latents = torch.empty(1, config.in_channels, config.sample_size, config.sample_size)
        text = torch.empty(1, config.num_text_tokens, config.text_hidden_size)
        timesteps = torch.ones(1)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), attention.backend(attention.math_attention):
        model(latents, timesteps, text)
    by_operation = counter.get_flop_counts()["Global"]
    attention_flops = sum(flops for operation, flops in by_operation.items() if operation in ATTENTION_PRODUCTS)
    total = counter.get_total_flops()
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gflops": (total - attention_flops) / 1e9,
        "gflops_with_attention": total / 1e9,
    }
