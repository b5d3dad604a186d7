"""Draws one scene: what it shows, where its shapes stand, and its pixels. All of it follows from one seed."""

import math
import random
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ifvit.data.scenes import (
    COLORS,
    IMAGE_SIZE,
    INVERSE_RELATIONS,
    MAX_COUNT,
    OUTLINES,
    PATTERNS,
    RELATIONS,
    SHAPE_SIZES,
    SHAPES,
    TONES,
    Description,
    Group,
    relation_between,
)

Box = tuple[float, float, float, float]  # left, top, width, height: COCO's
PAIR_SHARE = 0.5  # of the scenes that show two groups, where the options allow for it
MARGIN, GAP = 2, 3  # pixels between a shape and the border, and between the boxes of two shapes
SMALL, LARGE = 12, 18  # a group is called small up to the one size, large from the other
SUPERSAMPLING = 4  # shapes stand at quarters of a pixel, and their edges are smooth
PLACEMENTS = 60  # tried before the shapes are made smaller
COLOR_JITTER = 10  # of a group's red, green and blue


@dataclass(frozen=True)
class SceneOptions:
    """What may be drawn. `held_out`: whether scenes show a held-out combination, or never one."""

    max_count: int = MAX_COUNT
    colors: tuple[str, ...] = tuple(COLORS)
    shapes: tuple[str, ...] = SHAPES
    tones: tuple[str, ...] = tuple(TONES)
    patterns: tuple[str, ...] = PATTERNS
    min_size: int = SHAPE_SIZES[0]
    max_size: int = SHAPE_SIZES[1]
    held_out: bool = False

    @cached_property
    def combinations(self) -> list[Group]:
        """The groups that these options allow."""
        counts = range(1, self.max_count + 1)
        return [Group(count, color, shape) for count in counts for color in self.colors for shape in self.shapes]

    @cached_property
    def training_groups(self) -> list[Group]:
        return [group for group in self.combinations if not group.is_held_out]

    @cached_property
    def held_out_groups(self) -> list[Group]:
        return [group for group in self.combinations if group.is_held_out]


@dataclass(frozen=True)
class Scene:
    """A drawn scene. Boxes stand in the order of the description's groups."""

    description: Description
    boxes: tuple[tuple[Box, ...], ...]  # for each group those of its shapes
    background: tuple[str, str]  # tone, pattern
    pixels: NDArray[np.uint8]  # (IMAGE_SIZE, IMAGE_SIZE, 3)

    @property
    def sizes(self) -> tuple[str, ...]:
        """For each group "small" or "large" where all its shapes are, otherwise ""."""
        return tuple(size_word([max(box[2:]) for box in boxes]) for boxes in self.boxes)


def size_word(sides: list[float]) -> str:
    if max(sides) <= SMALL:
        return "small"
    return "large" if min(sides) >= LARGE else ""


def largest_size(count: int) -> int:
    """The largest shapes of which `count` surely find room in an image, in pixels."""
    per_side = math.ceil(math.sqrt(count))
    return (IMAGE_SIZE - 2 * MARGIN + GAP) // per_side - GAP


def draw_scene(options: SceneOptions, generator: random.Random) -> Scene:
    """A scene that `options` allow; `generator` decides everything."""
    while True:
        description = draw_description(options, generator)
        boxes = place(description, options, generator)
        if boxes is not None:
            break
    background = generator.choice(sorted(options.tones)), generator.choice(options.patterns)
    canvas = draw_background(*background, generator)
    for group, group_boxes in zip(description.groups, boxes, strict=True):
        color = np.array([channel + generator.randint(-COLOR_JITTER, COLOR_JITTER) for channel in COLORS[group.color]])
        for box in group_boxes:
            draw_shape(canvas, group.shape, box, color.clip(0, 255))
    return Scene(description, boxes, background, canvas.round().clip(0, 255).astype(np.uint8))


def draw_empty_scene(generator: random.Random) -> NDArray[np.uint8]:
    """(IMAGE_SIZE, IMAGE_SIZE, 3): a background without shapes. No scene is empty; a generated image may be."""
    background = draw_background(generator.choice(sorted(TONES)), generator.choice(PATTERNS), generator)
    return np.asarray(background.round().clip(0, 255).astype(np.uint8))


def draw_description(options: SceneOptions, generator: random.Random) -> Description:
    groups = options.held_out_groups if options.held_out else options.training_groups
    if generator.random() < PAIR_SHARE:
        first = fewer_first(groups, generator)
        others = options.combinations if options.held_out else groups
        partners = [
            other
            for other in others
            if first.count + other.count <= options.max_count
            and (other.color, other.shape) != (first.color, first.shape)
        ]
        if partners:
            pair = [first, fewer_first(partners, generator)]
            generator.shuffle(pair)
            return Description(tuple(pair), generator.choice(RELATIONS))
    return Description((generator.choice(groups),))


def fewer_first(groups: list[Group], generator: random.Random) -> Group:
    """One of `groups`, the likelier the fewer shapes it has: otherwise most pairs would fill the image."""
    return generator.choices(groups, [1 / group.count for group in groups])[0]


def place(
    description: Description, options: SceneOptions, generator: random.Random
) -> tuple[tuple[Box, ...], ...] | None:
    """Boxes for each group, apart from each other and as the relation says; None where none were found."""
    counts = [group.count for group in description.groups]
    size_limit = max(options.min_size, min(options.max_size, largest_size(sum(counts)) + 4))
    sizes = [generator.randint(options.min_size, size_limit) for _ in counts]
    while True:
        for _ in range(PLACEMENTS):
            boxes = random_boxes(description, sizes, options, generator)
            if boxes is not None:
                return boxes
        if max(sizes) == options.min_size:
            break
        sizes = [max(options.min_size, size - 2) for size in sizes]
    return (cell_boxes(counts[0], options.min_size, generator),) if len(counts) == 1 else None


def random_boxes(
    description: Description, sizes: list[int], options: SceneOptions, generator: random.Random
) -> tuple[tuple[Box, ...], ...] | None:
    placed: list[list[Box]] = []
    border = generator.uniform(0.35, 0.65) * IMAGE_SIZE  # where one group ends and the other one begins
    for number, (group, size) in enumerate(zip(description.groups, sizes, strict=True)):
        relation = description.relation
        side = INVERSE_RELATIONS[relation] if relation and number else relation
        near, far = float(MARGIN), float(IMAGE_SIZE - MARGIN)
        x_range = (border if side == "right of" else near, border if side == "left of" else far)
        y_range = (border if side == "below" else near, border if side == "above" else far)
        mine: list[Box] = []
        for _ in range(group.count):
            side_length = min(max(size + generator.randint(-1, 1), options.min_size), options.max_size)
            box = random_box(side_length, x_range, y_range, generator)
            if box is None or any(too_near(box, other) for boxes in [*placed, mine] for other in boxes):
                return None
            mine.append(box)
        placed.append(mine)
    if description.relation and relation_between(*placed) != description.relation:
        return None
    return tuple(tuple(boxes) for boxes in placed)


def random_box(
    side_length: int, x_range: tuple[float, float], y_range: tuple[float, float], generator: random.Random
) -> Box | None:
    corner = []
    for low, high in (x_range, y_range):
        first = math.ceil(low * SUPERSAMPLING)
        last = math.floor((high - side_length) * SUPERSAMPLING)
        if last < first:
            return None
        corner.append(generator.randint(first, last) / SUPERSAMPLING)
    return (corner[0], corner[1], float(side_length), float(side_length))


def too_near(box: Box, other: Box) -> bool:
    return all(
        box[axis] < other[axis] + other[axis + 2] + GAP and other[axis] < box[axis] + box[axis + 2] + GAP
        for axis in (0, 1)
    )


def cell_boxes(count: int, size: int, generator: random.Random) -> tuple[Box, ...]:
    """Boxes in different cells of a grid, for shapes so large that no random places were found."""
    per_side = math.ceil(math.sqrt(count))
    cells = generator.sample([(row, column) for row in range(per_side) for column in range(per_side)], count)
    pitch = size + GAP
    assert MARGIN + per_side * pitch - GAP <= IMAGE_SIZE - MARGIN, "the request should have been refused"
    return tuple(
        (float(MARGIN + column * pitch), float(MARGIN + row * pitch), float(size), float(size)) for row, column in cells
    )


def draw_background(tone: str, pattern: str, generator: random.Random) -> NDArray[np.float32]:
    """(IMAGE_SIZE, IMAGE_SIZE, 3) in 0..255: a grey, hardly tinted, with at most a soft pattern of two greys."""
    grey = generator.uniform(*TONES[tone]) + np.array([generator.uniform(-5, 5) for _ in range(3)])
    amplitude = generator.uniform(8, 16)
    angle = generator.choice((0.0, 0.25, 0.5, 0.75)) * math.pi
    phase = generator.uniform(0, 2 * math.pi)
    period = generator.uniform(9, 18)
    along, across = rotated_coordinates(angle)
    if pattern == "plain":
        field = np.zeros((IMAGE_SIZE, IMAGE_SIZE))
    elif pattern == "shaded":
        field = 1.6 * along / IMAGE_SIZE
    elif pattern == "striped":
        field = soft_wave(along, period, phase)
    else:
        field = soft_wave(along, period, phase) * soft_wave(across, period, phase)
    return np.asarray(grey + amplitude * field[..., None], np.float32)


@lru_cache
def rotated_coordinates(angle: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels from the centre, along and across a direction; each (IMAGE_SIZE, IMAGE_SIZE)."""
    y, x = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE] - (IMAGE_SIZE - 1) / 2
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def soft_wave(position: NDArray[np.float64], period: float, phase: float) -> NDArray[np.float64]:
    """Between -1 and 1, mostly one of the two, with soft edges."""
    return np.asarray(np.clip(2.5 * np.sin(2 * math.pi * position / period + phase), -1, 1))


def draw_shape(canvas: NDArray[np.float32], shape: str, box: Box, color: NDArray[np.int64]) -> None:
    """Paint one shape over the canvas, with smooth edges."""
    left, top, side = math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]) + 1
    offset_x, offset_y = (round((box[axis] - corner) * SUPERSAMPLING) for axis, corner in ((0, left), (1, top)))
    coverage = shape_coverage(shape, round(box[2] * SUPERSAMPLING), offset_x, offset_y, side)
    rows, columns = slice(top, top + side), slice(left, left + side)
    alpha = coverage[: IMAGE_SIZE - top, : IMAGE_SIZE - left, None]
    canvas[rows, columns] += alpha * (color - canvas[rows, columns])


@lru_cache(maxsize=4096)
def shape_coverage(shape: str, length: int, offset_x: int, offset_y: int, side: int) -> NDArray[np.float32]:
    """(side, side): which part of each pixel a shape covers. Length and offsets in quarters of a pixel."""
    mask = Image.new("L", (side * SUPERSAMPLING, side * SUPERSAMPLING))
    pencil = ImageDraw.Draw(mask)
    if OUTLINES[shape]:
        corners = [(offset_x + x * (length - 1), offset_y + y * (length - 1)) for x, y in OUTLINES[shape]]
        pencil.polygon(corners, fill=255)
    else:
        pencil.ellipse((offset_x, offset_y, offset_x + length - 1, offset_y + length - 1), fill=255)
    return np.asarray(np.asarray(mask.reduce(SUPERSAMPLING)) / 255, np.float32)
