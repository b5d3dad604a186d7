"""Tokens from latents and time, and latents from tokens."""

import math

import torch
from torch import Tensor, nn

from ifvit.config.schema import ModelConfig


def timestep_embedding(timesteps: Tensor, hidden_size: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoids [cos, sin] of the network input `timesteps` (B,), 1..1000 -> (B, hidden_size) in float32.

    "Attention is all you need", section 3.5, in the order U-ViT's public weights expect.
    """
    half = hidden_size // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps[:, None].float() * torch.exp(-math.log(max_period) * exponents)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class LatentHead(nn.Module):
    """Patch tokens (B, I - 1, D) -> latents (B, C, H, W): norm, linear, un-patchify, 3x3 convolution."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch_size, self.in_channels = config.patch_size, config.in_channels
        self.norm = nn.LayerNorm(config.hidden_size)
        self.linear = nn.Linear(config.hidden_size, config.patch_size**2 * config.in_channels)
        self.conv = nn.Conv2d(config.in_channels, config.in_channels, kernel_size=3, padding=1)

    def forward(self, patches: Tensor) -> Tensor:
        side = math.isqrt(patches.shape[1])
        pixels = self.linear(self.norm(patches))  # (B, I - 1, P * P * C): patch row, patch column, channel
        pixels = pixels.unflatten(-1, (self.patch_size, self.patch_size, self.in_channels)).unflatten(1, (side, side))
        latents = pixels.permute(0, 5, 1, 3, 2, 4).flatten(2, 3).flatten(3, 4)  # (B, C, H, W)
        return self.conv(latents)
