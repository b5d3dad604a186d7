"""The labelled sheet: every image is on it, pixel for pixel, in reading order."""

import numpy as np
import pytest

from ifvit.sampling.grid import MARGIN, columns_for, labelled_grid


def test_every_image_is_on_the_sheet() -> None:
    images = np.zeros((5, 64, 64, 3), np.uint8) + (np.arange(5, dtype=np.uint8) * 40 + 20)[:, None, None, None]
    sheet = np.asarray(labelled_grid(images, [f"prompt {number}" for number in range(5)], "a title"))
    first_rows = [np.argwhere((sheet == 20 + 40 * number).all(axis=-1))[0] for number in range(5)]
    areas = [(sheet == 20 + 40 * number).all(axis=-1).sum() for number in range(5)]
    assert all(
        192 * 192 <= area < 192 * 192 + 50 for area in areas
    )  # three times enlarged; labels add a few grey pixels
    assert [tuple(row) for row in first_rows] == sorted(tuple(row) for row in first_rows)


def test_large_images_are_not_enlarged() -> None:
    sheet = labelled_grid(np.zeros((1, 256, 256, 3), np.uint8), ["x"])
    assert sheet.width == 256 + 2 * MARGIN


def test_long_labels_wrap_and_make_room() -> None:
    images = np.zeros((2, 200, 200, 3), np.uint8)
    short, long = labelled_grid(images, ["a", "b"]), labelled_grid(images, ["a", "many words " * 20])
    assert long.width == short.width
    assert long.height > short.height


@pytest.mark.parametrize("count, columns", [(1, 1), (2, 2), (4, 2), (5, 4), (6, 3), (8, 4), (10, 5), (16, 4), (20, 5)])
def test_rows_are_full_where_they_can_be(count: int, columns: int) -> None:
    assert columns_for(count) == columns
