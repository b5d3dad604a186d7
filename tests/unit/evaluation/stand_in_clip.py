"""Image sets whose CLIP gives chosen embeddings."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ifvit.encoders.clip import Clip
from ifvit.evaluation.metric import ImageSet


class StandInClip:
    """Gives `embeds` for its images, and for a prompt the direction that `directions` has for it."""

    identity: dict[str, Any] = {"name": "stand-in"}  # noqa: RUF012

    def __init__(self, embeds: Tensor, directions: dict[str, Tensor]) -> None:
        self.embeds = embeds
        self.directions = directions

    def image_embeds(self, images: np.ndarray) -> Tensor:
        return self.embeds

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        return F.normalize(torch.stack([self.directions[prompt] for prompt in prompts]))


def image_set(embeds: Tensor, directions: dict[str, Tensor] | None = None, prompts: Sequence[str] = ()) -> ImageSet:
    """A set of black images, as many as `embeds` (N, P) has rows."""
    clip = cast(Clip, StandInClip(embeds, directions or {}))
    return ImageSet(np.zeros((len(embeds), 8, 8, 3), np.uint8), prompts or [""] * len(embeds), clip)
