"""IF-U-ViT: one backbone whose fusion plan says which blocks see text (arXiv 2403.16530, figure 3).

Shape letters: B batch, C latent channels, H W latent rows and columns, P patch, I image tokens (time token first),
T text tokens, X text width, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ifvit.config.fusion import Sees
from ifvit.config.schema import ModelConfig
from ifvit.model.blocks import TransformerBlock
from ifvit.model.conditioning import CONDITIONING, ImageOnly
from ifvit.model.embeddings import LatentHead, timestep_embedding


class UViT(nn.Module):
    """The noise prediction network of the four cells {concat, cross_attention} x {early, intermediate}."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        plan, width = config.plan, config.hidden_size
        layers: dict[Sees, Any] = {"image": ImageOnly, "fused": CONDITIONING[config.conditioning]}
        self.patch_embed = nn.Conv2d(config.in_channels, width, config.patch_size, stride=config.patch_size)
        self.time_mlp = time_mlp(width) if config.time_embedding_mlp else nn.Identity()
        self.text_embed = nn.Linear(config.text_hidden_size, width)
        self.image_position = nn.Parameter(torch.empty(1, config.num_image_tokens, width))
        self.text_position = nn.Parameter(torch.empty(1, config.num_text_tokens, width))
        self.text_blocks = nn.ModuleList(TransformerBlock(config) for _ in range(plan.num_text_blocks))
        self.in_blocks = nn.ModuleList(layers[sees](config, takes_skip=False) for sees in plan.in_path)
        self.mid_block = layers["fused"](config, takes_skip=False)
        self.out_blocks = nn.ModuleList(layers[sees](config, takes_skip=True) for sees in plan.out_path)
        self.head = LatentHead(config)
        self.initialise()

    def initialise(self) -> None:
        """Truncated normal (0.02) for linear weights and positions, zero linear biases; torch's own for the rest."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.image_position, std=0.02)
        nn.init.trunc_normal_(self.text_position, std=0.02)

    def forward(self, latents: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Predict the noise in noised `latents`.

        Args:
            latents: (B, C, H, W), scaled and noised.
            timesteps: (B,), the network input 1..1000 (a scheduler's index plus 1: `diffusion.timesteps`).
            encoder_hidden_states: (B, T, X), the text encoder's last hidden state.

        Returns:
            The predicted noise (B, C, H, W).
        """
        image = self.embed_image(latents, timesteps)
        text = self.embed_text(encoder_hidden_states)
        skips = []
        for block in self.in_blocks:
            image, text = block(image, text)
            skips.append((image, text))
        image, text = self.mid_block(image, text)
        for block in self.out_blocks:
            image, text = block(image, text, skips.pop())
        return self.head(image[:, 1:])  # without the time token

    def embed_image(self, latents: Tensor, timesteps: Tensor) -> Tensor:
        """The time token, then one token per latent patch: (B, I, D)."""
        patches = self.patch_embed(latents).flatten(2).transpose(1, 2)  # (B, I - 1, D)
        time = self.time_mlp(timestep_embedding(timesteps, patches.shape[-1]).to(patches.dtype))  # (B, D)
        return torch.cat((time[:, None], patches), dim=1) + self.image_position

    def embed_text(self, encoder_hidden_states: Tensor) -> Tensor:
        """Text tokens after the text-only blocks: (B, T, X) -> (B, T, D). Independent of latents and time."""
        text = self.text_embed(encoder_hidden_states) + self.text_position
        for block in self.text_blocks:
            text = block(text)
        return text


def time_mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
