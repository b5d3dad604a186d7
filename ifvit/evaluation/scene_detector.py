"""Finds the shapes of scenes in images: colour segmentation, connected regions, a shape test. Nothing is learned.

A pixel's chroma is its colour without the grey part. Backgrounds are grey, so a shape covers as much of a pixel as the
pixel's chroma has of its colour's: seen that way, a shape keeps its smooth edges and loses its background.

N images of H x W pixels, C colours, K regions, G x G points of a patch.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from ifvit.data.scenes import COLORS, OUTLINES, SHAPE_SIZES, SHAPES

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]

# Two directions at right angles to grey, and each colour along them.
CHROMA_AXES = np.array([[1, -1, 0], [1, 1, -2]], np.float32) / np.sqrt(np.array([[2], [6]], np.float32))
COLOR_CHROMA = np.array(list(COLORS.values()), np.float32) @ CHROMA_AXES.T  # (C, 2)
COLOR_STRENGTH = np.linalg.norm(COLOR_CHROMA, axis=1)  # (C,)
CHUNK = 256  # images looked at together

# Regions. Neighbouring hues lie 26 degrees apart or more.
SMOOTHING = 0.5  # pixels; only to find the regions
MAX_HUE_ERROR = np.deg2rad(25)  # from the region's colour, in each pixel
MIN_STRENGTH = 0.4  # of a pixel's chroma, relative to its colour's
MIN_AREA = 16  # pixels; the smallest star has more than twice as many
# Shapes: what colourful mush does not have.
MIN_CORRELATION = 0.93  # with a template
MAX_COLORED_SURROUNDINGS = 0.4  # the share of the pixels around a shape that are not grey
MIN_SIDE, MAX_SIDE = 0.85 * SHAPE_SIZES[0], 0.95  # of a shape's box; in pixels, and of the image's side
MAX_ASPECT = 1.3  # longer side over shorter
# Patches and templates.
PATCH_POINTS, PATCH_REACH = 24, 2.9  # G, and how far a patch reaches from the centre, in spreads
TEMPLATE_SIZES, TEMPLATE_BLURS = (10, 14, 20), (0.0, 1.0)  # pixels


@dataclass(frozen=True)
class DetectedShape:
    """One shape in an image; `box` is COCO's (left, top, width, height), in pixels."""

    color: str
    shape: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Regions:
    """Connected pixels of one colour each, weighted by how strong the colour is in them."""

    image: Ints  # (K,) which image it lies in
    color: Ints  # (K,) index into COLORS
    centre: Floats  # (K, 2) mean x and y
    spread: Floats  # (K, 2) standard deviation of x and y
    colored_surroundings: Floats  # (K,) share of the pixels next to it that are not grey
    patches: Floats  # (K, G * G) the region around its centre in units of its spread; mean 0, length 1


def detect(images: NDArray[np.uint8]) -> list[list[DetectedShape]]:
    """The shapes in each of `images` (N, H, W, 3).

    Made for 64 x 64 pixels; a larger image may show larger shapes, a shape under 8.5 pixels is none anywhere.
    """
    assert images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3, (images.dtype, images.shape)
    chunks = (images[start : start + CHUNK] for start in range(0, len(images), CHUNK))
    return [shapes for chunk in chunks for shapes in detect_together(chunk)]


def detect_together(images: NDArray[np.uint8]) -> list[list[DetectedShape]]:
    """`detect` for a few images at once."""
    templates, template_boxes = shape_templates()
    regions = find_regions(images)
    correlations = regions.patches @ templates.T  # (K, templates)
    best = correlations.argmax(axis=1)
    corners = regions.centre + template_boxes[best, :2] * regions.spread
    sides = template_boxes[best, 2:] * regions.spread
    shorter, longer = sides.min(axis=1), sides.max(axis=1)
    accepted = (
        (correlations.max(axis=1) >= MIN_CORRELATION)
        & (regions.colored_surroundings <= MAX_COLORED_SURROUNDINGS)
        & (shorter >= MIN_SIDE)
        & (longer <= MAX_SIDE * min(images.shape[1:3]))
        & (longer <= MAX_ASPECT * shorter)
    )
    colors = tuple(COLORS)
    found: list[list[DetectedShape]] = [[] for _ in images]
    for k in np.flatnonzero(accepted):
        left, top, width, height = (float(number) for number in (*corners[k], *sides[k]))
        shape = SHAPES[best[k] % len(SHAPES)]
        found[regions.image[k]].append(DetectedShape(colors[regions.color[k]], shape, (left, top, width, height)))
    return found


def find_regions(images: NDArray[np.uint8]) -> Regions:
    """Everything in `images` (N, H, W, 3) that has one of the colours and might be a shape."""
    chroma = images @ CHROMA_AXES.T  # (N, H, W, 2)
    smoothed = ndimage.gaussian_filter(chroma, (0, SMOOTHING, SMOOTHING, 0))
    labels, color = label_regions(smoothed)
    labels = np.where(labels == 0, ndimage.grey_dilation(labels, (1, 3, 3)), labels)  # with the smooth edges
    image, y, x = np.nonzero(labels)
    region = labels[image, y, x] - 1
    count = len(color)
    along = (chroma[image, y, x] * COLOR_CHROMA[color[region]]).sum(axis=1)
    weights = (along / np.square(COLOR_STRENGTH[color[region]])).clip(0)  # one for each pixel of a region

    totals = np.bincount(region, weights, count)[:, None]
    position = np.stack([x, y], axis=1) + 0.5
    centre = sums(region, weights[:, None] * position, count) / totals
    spread = np.sqrt(sums(region, weights[:, None] * np.square(position - centre[region]), count) / totals)
    image_of = np.zeros(count, np.int64)
    image_of[region] = image
    weight_map = np.zeros(labels.shape)
    weight_map[image, y, x] = weights
    return Regions(
        image_of,
        color,
        centre,
        spread,
        colored_surroundings(labels, np.hypot(*np.moveaxis(smoothed, -1, 0)) >= MIN_STRENGTH * COLOR_STRENGTH.min()),
        cut_patches(weight_map, labels, image_of, centre, spread),
    )


def sums(region: Ints, values: Floats, count: int) -> Floats:
    """(K, 2): of `values` (pixels, 2) over the pixels of each region."""
    return np.stack([np.bincount(region, column, count) for column in values.T], axis=1)


def label_regions(chroma: Floats) -> tuple[Ints, Ints]:
    """The regions' numbers 1..K in their pixels, (N, H, W), 0 elsewhere; and the colour of each, (K,).

    A pixel between two hues may count for both; a region counts for the colour that its whole is nearest to.
    """
    along = np.moveaxis(chroma @ (COLOR_CHROMA / COLOR_STRENGTH[:, None]).T, -1, 0)  # (C, N, H, W)
    is_strong = along >= MIN_STRENGTH * COLOR_STRENGTH[:, None, None, None]
    has_hue = along >= np.cos(MAX_HUE_ERROR) * np.hypot(*np.moveaxis(chroma, -1, 0))
    side_by_side = np.zeros((3, 3, 3), bool)
    side_by_side[1] = ndimage.generate_binary_structure(2, 1)  # never from one image to the next
    planes = (is_strong & has_hue).reshape(-1, *along.shape[2:])
    labels = ndimage.label(planes, side_by_side)[0].reshape(along.shape)

    color, *pixel = np.nonzero(labels)
    label = labels[color, *pixel]
    color_of = np.zeros(label.max(initial=0) + 1, np.int64)
    color_of[label] = color
    totals = np.stack([np.bincount(label, along_color[*pixel], len(color_of)) for along_color in along])
    labels = np.where(totals.argmax(axis=0) == color_of, np.arange(len(color_of)), 0)[labels].max(axis=0)
    large = np.flatnonzero(np.bincount(labels[labels > 0]) >= MIN_AREA)
    numbers = np.zeros(len(color_of), np.int64)
    numbers[large] = np.arange(1, len(large) + 1)
    return numbers[labels], color_of[large]


def colored_surroundings(labels: Ints, is_colored: NDArray[np.bool_]) -> Floats:
    """(K,): of the places two pixels up, down, left or right of a region and outside it, the share with a colour."""
    count = labels.max(initial=0)
    image, y, x = np.nonzero(labels)
    region = labels[image, y, x]
    outside, colored = np.zeros(count), np.zeros(count)
    for dy, dx in ((-2, 0), (2, 0), (0, -2), (0, 2)):
        there = image, (y + dy).clip(0, labels.shape[1] - 1), (x + dx).clip(0, labels.shape[2] - 1)
        is_outside = labels[there] != region
        outside += np.bincount(region - 1, is_outside, count)
        colored += np.bincount(region - 1, is_outside & is_colored[there], count)
    return np.asarray(colored / outside.clip(1))


def cut_patches(weights: Floats, labels: Ints, image: Ints, centre: Floats, spread: Floats) -> Floats:
    """(K, G * G): each region alone, stretched so that it is as wide as it is high; mean 0, length 1."""
    reach = np.linspace(-PATCH_REACH, PATCH_REACH, PATCH_POINTS)
    x, y = (centre[:, axis, None] - 0.5 + spread[:, axis, None] * reach for axis in (0, 1))  # (K, G)
    points = np.stack(np.broadcast_arrays(image[:, None, None], y[:, :, None], x[:, None, :]))  # (3, K, G, G)
    is_own = ndimage.map_coordinates(labels, points, order=0) == np.arange(1, len(image) + 1)[:, None, None]
    patches = np.where(is_own, ndimage.map_coordinates(weights, points, order=1), 0)
    patches = patches.reshape(len(image), PATCH_POINTS**2)
    patches -= patches.mean(axis=1, keepdims=True)
    return np.asarray(patches / np.linalg.norm(patches, axis=1, keepdims=True))


@cache
def shape_templates() -> tuple[Floats, Floats]:
    """Patches of drawn shapes (templates, G * G), SHAPES over and over, and their boxes (templates, 4).

    A box is the left, top, width and height from the region's centre in units of its spread: thresholds and blur shrink
    a region, its outline stays where it is.
    """
    drawn = [(shape, size, blur) for size in TEMPLATE_SIZES for blur in TEMPLATE_BLURS for shape in SHAPES]
    regions = find_regions(np.stack([draw_template(*each) for each in drawn]))
    assert list(regions.image) == list(range(len(drawn)))
    size = np.array([[size] for _, size, _ in drawn])
    corner = (TEMPLATE_SIDE - size) / 2
    return regions.patches, np.hstack([(corner - regions.centre) / regions.spread, size / regions.spread])


TEMPLATE_SIDE = 2 * max(TEMPLATE_SIZES)  # pixels of the image that a template is drawn in
SUPERSAMPLING = 8


def draw_template(shape: str, size: int, blur: float) -> NDArray[np.uint8]:
    """(TEMPLATE_SIDE, TEMPLATE_SIDE, 3): a red shape in the middle of grey; size and blur in pixels."""
    canvas = Image.new("RGB", (TEMPLATE_SIDE * SUPERSAMPLING, TEMPLATE_SIDE * SUPERSAMPLING), "grey")
    pencil = ImageDraw.Draw(canvas)
    first, length = (TEMPLATE_SIDE - size) * SUPERSAMPLING // 2, size * SUPERSAMPLING - 1
    if OUTLINES[shape]:
        pencil.polygon([(first + x * length, first + y * length) for x, y in OUTLINES[shape]], COLORS["red"])
    else:
        pencil.ellipse((first, first, first + length, first + length), COLORS["red"])
    smooth = np.asarray(canvas.reduce(SUPERSAMPLING), np.float64)
    return ndimage.gaussian_filter(smooth, (blur, blur, 0)).round().astype(np.uint8)
