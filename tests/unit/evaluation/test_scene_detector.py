"""The detector against the generator: a scene gives just its own shapes, also when spoilt; no scene gives none."""

import random

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from data_prep.scene_drawing import Scene, SceneOptions, draw_scene, draw_shape
from ifvit.data.scenes import COLORS, SHAPE_SIZES, SHAPES
from ifvit.evaluation import scene_detector
from ifvit.evaluation.scene_detector import detect
from tests.detected_scenes import exact_share, kinds


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """400 scenes, half of them of held-out combinations."""
    return [
        draw_scene(SceneOptions(held_out=held_out), random.Random(f"{held_out} {number}"))
        for held_out in (False, True)
        for number in range(200)
    ]


@pytest.fixture(scope="module")
def pixels(scenes: list[Scene]) -> NDArray[np.uint8]:
    return np.stack([scene.pixels for scene in scenes])


def as_image(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return values.round().clip(0, 255).astype(np.uint8)


def resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def drawn(*shapes: tuple[str, str, tuple[float, float, float, float]]) -> NDArray[np.uint8]:
    """A grey image with shapes of given colour, shape and box."""
    canvas = np.full((64, 64, 3), 128, np.float32)
    for color, shape, box in shapes:
        draw_shape(canvas, shape, box, np.array(COLORS[color]))
    return as_image(canvas)


def test_real_scenes_are_read_exactly(scenes: list[Scene], pixels: NDArray[np.uint8]) -> None:
    assert exact_share(pixels, scenes) >= 0.99


def test_boxes_are_where_the_shapes_are(scenes: list[Scene], pixels: NDArray[np.uint8]) -> None:
    errors = []
    for scene, shapes in zip(scenes, detect(pixels), strict=True):
        real = np.array([box for boxes in scene.boxes for box in boxes])
        for shape in shapes:
            errors.append(np.abs(real - shape.box).max(axis=1).min())
    assert np.median(errors) < 0.3
    assert np.quantile(errors, 0.99) < 1.0


@pytest.mark.parametrize("blur, noise, drift", [(0.7, 4, 8), (1.0, 8, 12), (0.0, 16, 8)])
def test_blur_noise_and_drift_of_color_do_no_harm(
    blur: float, noise: float, drift: float, scenes: list[Scene], pixels: NDArray[np.uint8]
) -> None:
    generator = np.random.default_rng(0)
    spoilt = ndimage.gaussian_filter(pixels.astype(np.float32), (0, blur, blur, 0))
    spoilt += noise * generator.standard_normal(spoilt.shape)
    spoilt += generator.uniform(-drift, drift, (len(spoilt), 1, 1, 3))
    assert exact_share(as_image(spoilt), scenes) >= 0.97


def test_half_the_resolution_is_enough(scenes: list[Scene], pixels: NDArray[np.uint8]) -> None:
    halved = np.stack([resized(resized(image, 32), 64) for image in pixels])
    assert exact_share(halved, scenes) >= 0.97


def test_twice_the_resolution_is_read_too(scenes: list[Scene], pixels: NDArray[np.uint8]) -> None:
    doubled = np.stack([resized(image, 128) for image in pixels[:50]])
    assert exact_share(doubled, scenes[:50]) >= 0.99


@pytest.mark.parametrize("size", SHAPE_SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_every_color_at_both_ends_of_size(shape: str, size: int) -> None:
    box = (20.25, 15.5, float(size), float(size))
    for color, shapes in zip(COLORS, detect(np.stack([drawn((color, shape, box)) for color in COLORS])), strict=True):
        assert kinds(shapes) == {(color, shape): 1}


def test_shapes_of_two_colors_that_touch_are_two() -> None:
    touching = drawn(("red", "square", (14, 20, 18, 18)), ("orange", "square", (32, 20, 18, 18)))
    assert kinds(detect(touching[None])[0]) == {("red", "square"): 1, ("orange", "square"): 1}


@pytest.mark.parametrize("share", [0.4, 0.5, 0.6])
def test_a_shape_of_a_hue_between_two_is_one_shape(share: float) -> None:
    canvas = np.full((64, 64, 3), 128, np.float32)
    color = share * np.array(COLORS["red"]) + (1 - share) * np.array(COLORS["orange"])
    draw_shape(canvas, "star", (20, 20, 20, 20), color)
    canvas += 8 * np.random.default_rng(1).standard_normal(canvas.shape).astype(np.float32)
    (found,) = detect(as_image(canvas)[None])[0]
    assert found.shape == "star" and found.color in ("red", "orange")


def test_neither_blank_nor_noisy_images_have_shapes() -> None:
    generator = np.random.default_rng(0)
    blank = np.zeros((100, 64, 64, 3)) + generator.uniform(0, 255, (100, 1, 1, 3))
    noise = generator.uniform(0, 255, (100, 64, 64, 3))
    assert not any(detect(as_image(blank))) and not any(detect(as_image(noise)))


@pytest.mark.parametrize("grain", [1, 2, 4, 8])
def test_colorful_mush_has_hardly_any_shapes(grain: float) -> None:
    mush = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((100, 64, 64, 3)), (0, grain, grain, 0))
    mush *= 70 / mush.std(axis=(1, 2), keepdims=True)
    assert sum(len(shapes) for shapes in detect(as_image(128 + mush))) <= 10


@pytest.mark.parametrize(
    "rows, columns",
    [
        pytest.param(slice(30, 40), slice(10, 50), id="bar"),
        pytest.param(slice(30, 35), slice(30, 35), id="dot"),
        pytest.param(slice(0, 64), slice(1, 64), id="whole image"),
    ],
)
def test_what_no_scene_draws_is_no_shape(rows: slice, columns: slice) -> None:
    image = drawn()
    image[rows, columns] = COLORS["green"]
    assert detect(image[None]) == [[]]


def test_an_angular_piece_is_no_shape() -> None:
    image = drawn(("blue", "square", (20, 20, 20, 20)))
    image[20:32, 26:34] = 128
    assert detect(image[None]) == [[]]


def test_a_shape_amid_another_color_is_none() -> None:
    image = drawn()
    image[...] = COLORS["yellow"]
    canvas = image.astype(np.float32)
    draw_shape(canvas, "circle", (20, 20, 20, 20), np.array(COLORS["blue"]))
    assert detect(as_image(canvas)[None]) == [[]]


def test_images_do_not_influence_each_other(pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    together = detect(pixels[:10])
    assert [shapes for image in pixels[:10] for shapes in detect(image[None])] == together
    monkeypatch.setattr(scene_detector, "CHUNK", 3)
    assert detect(pixels[:10]) == together
    assert detect(pixels[:0]) == []
