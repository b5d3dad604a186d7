"""The countable world: what the scenes generator draws and the scenes detector recognises.

A scene is one group of equal shapes, or two groups side by side or one above the other, on a background without colour.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IMAGE_SIZE = 64  # pixels
MAX_COUNT = 5  # shapes in one image: the paper counts up to five
SHAPE_SIZES = (10, 23)  # smallest and largest side of a shape's bounding box, in pixels

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 42, 42),
    "orange": (240, 128, 20),
    "yellow": (244, 226, 44),
    "green": (40, 168, 72),
    "blue": (44, 84, 222),
    "purple": (152, 52, 196),
}
# What a background may be: its tone is grey, so that no background has a shape's colour.
TONES = {"dark": (30, 80), "grey": (105, 150), "light": (185, 232)}
PATTERNS = ("plain", "shaded", "striped", "checked")


def regular_star() -> list[tuple[float, float]]:
    """A five-pointed star, point up, stretched to fill the unit square."""
    angles = np.pi * np.arange(10) / 5
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.45)
    points = np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)
    low, high = points.min(axis=0), points.max(axis=0)
    return [(float(x), float(y)) for x, y in (points - low) / (high - low)]


# Outlines in the unit square, y downwards; a circle is the ellipse in it.
OUTLINES: dict[str, list[tuple[float, float]]] = {
    "circle": [],
    "square": [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)],
    "triangle": [(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)],
    "star": regular_star(),
    "cross": [
        *((1 / 3, 0.0), (2 / 3, 0.0), (2 / 3, 1 / 3), (1.0, 1 / 3), (1.0, 2 / 3), (2 / 3, 2 / 3)),
        *((2 / 3, 1.0), (1 / 3, 1.0), (1 / 3, 2 / 3), (0.0, 2 / 3), (0.0, 1 / 3), (1 / 3, 1 / 3)),
    ],
}
SHAPES = tuple(OUTLINES)
KINDS = [(color, shape) for color in COLORS for shape in SHAPES]

INVERSE_RELATIONS = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
RELATIONS = tuple(INVERSE_RELATIONS)

HELD_OUT_EVERY, HELD_OUT_PLACE = 10, 6  # one combination of colour, shape and count in ten is never trained on


@dataclass(frozen=True)
class Group:
    """`count` shapes of one kind."""

    count: int
    color: str
    shape: str

    @property
    def is_held_out(self) -> bool:
        """Whether this combination is kept out of every training split.

        The held-out ones are spread so that each colour, each shape and each count stands in some of them, and that
        each two of the three are seen together in training.
        """
        place = list(COLORS).index(self.color) + 2 * SHAPES.index(self.shape) + 3 * (self.count - 1)
        return place % HELD_OUT_EVERY == HELD_OUT_PLACE


@dataclass(frozen=True)
class Description:
    """What a scene shows, or what a caption says of one: groups, and where the first stands from the second."""

    groups: tuple[Group, ...]
    relation: str | None = None  # one of RELATIONS; None where there is one group or none is said

    @property
    def is_held_out(self) -> bool:
        """Whether any of its groups is held out."""
        return any(group.is_held_out for group in self.groups)

    def in_order(self) -> "Description":
        """The same with its groups in a fixed order: descriptions of equal content compare equal."""
        ordered = tuple(sorted(self.groups, key=lambda group: KINDS.index((group.color, group.shape))))
        if ordered == self.groups or self.relation is None:
            return Description(ordered, self.relation)
        return Description(ordered, INVERSE_RELATIONS[self.relation])


def relation_between(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> str:
    """Where the boxes `first` stand from `second`, by the mean of their centres along the longer axis.

    Boxes are COCO's: left, top, width, height.
    """
    dx, dy = mean_centre(first) - mean_centre(second)
    if abs(dx) >= abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def mean_centre(boxes: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    corners_and_sizes = np.asarray(boxes, np.float64)
    return np.asarray((corners_and_sizes[:, :2] + corners_and_sizes[:, 2:] / 2).mean(axis=0))
