"""How text reaches image tokens inside a fused block. One class per method.

To add one: write a class here with the same `forward`, name it in CONDITIONING and in the recipe's Literal.
tests/unit/model/test_conditioning.py then covers it under every fusion schedule.
"""

import torch
from torch import Tensor, nn

from ifvit.config.schema import ModelConfig
from ifvit.model.blocks import TransformerBlock

Tokens = tuple[Tensor, Tensor]  # image (B, I, D), text (B, T, D)


class Concat(nn.Module):
    """Text joins the sequence: both modalities ask and answer, and both are updated (paper, section 2.4 i)."""

    def __init__(self, config: ModelConfig, *, takes_skip: bool) -> None:
        super().__init__()
        self.block = TransformerBlock(config, takes_skip=takes_skip)

    def forward(self, image: Tensor, text: Tensor, skip: Tokens | None = None) -> Tokens:
        joined_skip = None if skip is None else torch.cat(skip, dim=1)  # (B, I + T, D)
        tokens = self.block(torch.cat((image, text), dim=1), joined_skip)
        return tokens[:, : image.shape[1]], tokens[:, image.shape[1] :]


class CrossAttention(nn.Module):
    """Only image tokens ask. Text is read by every fused block and leaves as it came (paper, section 2.4 ii)."""

    def __init__(self, config: ModelConfig, *, takes_skip: bool) -> None:
        super().__init__()
        self.block = TransformerBlock(config, takes_skip=takes_skip)

    def forward(self, image: Tensor, text: Tensor, skip: Tokens | None = None) -> Tokens:
        return self.block(image, None if skip is None else skip[0], context=text), text


class ImageOnly(nn.Module):
    """Not a conditioning method: the block of the outer, image-only path, with the same call. Text passes by."""

    def __init__(self, config: ModelConfig, *, takes_skip: bool) -> None:
        super().__init__()
        self.block = TransformerBlock(config, takes_skip=takes_skip)

    def forward(self, image: Tensor, text: Tensor, skip: Tokens | None = None) -> Tokens:
        return self.block(image, None if skip is None else skip[0]), text


CONDITIONING: dict[str, type[nn.Module]] = {"concat": Concat, "cross_attention": CrossAttention}
