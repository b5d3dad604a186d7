"""What a metric is. A new one is a file like frechet.py and a line in registry.py; tables and figures follow by it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ifvit.encoders.clip import Clip


class ImageSet:
    """Images (N, height, width, 3) uint8 with the prompt of each, and CLIP's view of them, computed once."""

    def __init__(self, images: NDArray[np.uint8], prompts: Sequence[str], clip: Clip) -> None:
        assert len(images) == len(prompts), (len(images), len(prompts))
        self.images = images
        self.prompts = prompts
        self.clip = clip

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
    left out, and what must be known to read the values is their `remark`.
    """

    measure: Callable[[ImageSet, ImageSet], dict[str, Any]]
    columns: tuple[Column, ...]
