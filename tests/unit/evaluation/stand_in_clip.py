"""Image sets whose CLIP gives chosen embeddings."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ifvit.encoders.clip import Clip
from ifvit.evaluation.metric import ImageSet, PromptSet


class StandInClip:
    """Gives `embeds` for its images, and for a prompt the direction that `directions` has for it.

    It reads `num_text_tokens` letters, and knows all words that stand in `directions`.
    """

    identity: dict[str, Any] = {"name": "stand-in"}  # noqa: RUF012

    def __init__(self, embeds: Tensor, directions: dict[str, Tensor], num_text_tokens: int = 77) -> None:
        self.embeds = embeds
        self.directions = directions
        self.num_text_tokens = num_text_tokens
        self.num_text_calls = 0

    def image_embeds(self, images: np.ndarray) -> Tensor:
        return self.embeds

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        self.num_text_calls += 1
        return F.normalize(torch.stack([self.directions[prompt] for prompt in prompts]))

    def num_truncated(self, prompts: Sequence[str]) -> int:
        return sum(len(prompt) > self.num_text_tokens for prompt in prompts)

    def knows_words(self, text: str) -> bool:
        return any(text in prompt for prompt in self.directions)


def image_set(
    embeds: Tensor, directions: dict[str, Tensor] | None = None, prompts: Sequence[str] = (), num_text_tokens: int = 77
) -> ImageSet:
    """A set of black images, as many as `embeds` (N, P) has rows."""
    clip = cast(Clip, StandInClip(embeds, directions or {}, num_text_tokens))
    prompt_set = PromptSet(prompts or [""] * len(embeds), clip)
    return ImageSet(np.zeros((len(embeds), 8, 8, 3), np.uint8), prompt_set)
