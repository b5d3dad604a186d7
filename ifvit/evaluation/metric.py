"""What a metric is. A new one is a file like frechet.py and a line in registry.py; tables and figures follow by it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ifvit.encoders.clip import Clip


class PromptSet:
    """Prompts, and CLIP's view of them, computed once for all images that are measured with them."""

    def __init__(self, prompts: Sequence[str], clip: Clip) -> None:
        self.prompts = tuple(prompts)
        self.clip = clip
        self.features: dict[str, Tensor] = {}  # by prefix

    def text_features(self, prefix: str = "") -> Tensor:
        """(N, P) float32 of length 1: of each prompt behind `prefix`."""
        if prefix not in self.features:
            self.features[prefix] = self.clip.text_features([prefix + prompt for prompt in self.prompts])
        return self.features[prefix]


class ImageSet:
    """Images (N, height, width, 3) uint8 with the prompt of each, and CLIP's view of them, computed once."""

    def __init__(self, images: NDArray[np.uint8], prompt_set: PromptSet) -> None:
        assert len(images) == len(prompt_set.prompts), (len(images), len(prompt_set.prompts))
        self.images = images
        self.prompt_set = prompt_set

    @property
    def prompts(self) -> tuple[str, ...]:
        return self.prompt_set.prompts

    @property
    def clip(self) -> Clip:
        return self.prompt_set.clip

    @cached_property
    def image_embeds(self) -> Tensor:
        """(N, P) float32, not normalised."""
        return self.clip.image_embeds(self.images)


@dataclass(frozen=True)
class Column:
    """One number of a metric, as tables and figures show it."""

    key: str  # of the metric's values
    title: str
    decimals: int
    more_is_better: bool
    is_plotted: bool = True  # in figures, which have less room than tables


@dataclass(frozen=True)
class Metric:
    """A measurement of images against the real images of the same prompts.

    `measure(images, real)` gives values ready for JSON: a mean over nothing is None, a value that does not apply is
    left out, and what must be known to read the values are their `remarks`, a list of sentences.
    """

    measure: Callable[[ImageSet, ImageSet], dict[str, Any]]
    columns: tuple[Column, ...]
