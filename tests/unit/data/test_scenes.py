"""ifvit/data/scenes.py"""

import colorsys
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest

from ifvit.data.scenes import (
    COLORS,
    INVERSE_RELATIONS,
    MAX_COUNT,
    OUTLINES,
    SHAPES,
    TONES,
    Description,
    Group,
    relation_between,
)

GROUPS = [Group(*kind) for kind in product(range(1, MAX_COUNT + 1), COLORS, SHAPES)]
HELD_OUT = [group for group in GROUPS if group.is_held_out]


def test_one_combination_in_ten_is_held_out() -> None:
    assert (len(GROUPS), len(HELD_OUT)) == (150, 15)


@pytest.mark.parametrize("part, values", [("count", range(1, MAX_COUNT + 1)), ("color", COLORS), ("shape", SHAPES)])
def test_held_out_ones_are_spread(part: str, values: object) -> None:
    found = Counter(getattr(group, part) for group in HELD_OUT)
    assert set(found) == set(values)  # type: ignore[call-overload]
    assert max(found.values()) <= 4


def test_any_two_of_a_held_out_combination_are_trained_on() -> None:
    for one, other in combinations(("count", "color", "shape"), 2):
        every, trained = (
            {(getattr(group, one), getattr(group, other)) for group in groups}
            for groups in (GROUPS, set(GROUPS) - set(HELD_OUT))
        )
        assert trained == every


def test_a_description_with_a_held_out_group_is_held_out() -> None:
    trained = next(group for group in GROUPS if not group.is_held_out)
    assert Description((trained, HELD_OUT[0]), "above").is_held_out
    assert Description((HELD_OUT[0],)).is_held_out
    assert not Description((trained,)).is_held_out


def test_in_order_descriptions_of_equal_content_are_equal() -> None:
    red, blue = Group(2, "red", "star"), Group(1, "blue", "star")
    assert Description((blue, red), "above").in_order() == Description((red, blue), "below")
    assert Description((red, blue), "below").in_order() == Description((red, blue), "below")
    assert Description((blue, red)).in_order() == Description((red, blue))
    assert Description((blue, red), "below").in_order() != Description((red, blue), "below")


@pytest.mark.parametrize("shape", SHAPES)
def test_outlines_fill_the_unit_square(shape: str) -> None:
    if shape == "circle":
        assert OUTLINES[shape] == []
    else:
        corners = np.array(OUTLINES[shape])
        assert (corners.min(axis=0) == 0).all() and (corners.max(axis=0) == 1).all()


def test_colors_differ_in_hue_and_stand_out_from_every_background() -> None:
    hues = sorted(colorsys.rgb_to_hsv(*(channel / 255 for channel in color))[0] for color in COLORS.values())
    assert min(np.diff([*hues, hues[0] + 1])) > 0.05
    assert all(max(color) - min(color) > 100 for color in COLORS.values())
    assert all(0 < low < high < 255 for low, high in TONES.values())


CENTRE = [30.0, 30.0, 10.0, 10.0]


@pytest.mark.parametrize(
    "first, relation",
    [
        ([[10, 30, 10, 10]], "left of"),
        ([[50, 30, 10, 10]], "right of"),
        ([[30, 10, 10, 10]], "above"),
        ([[30, 50, 10, 10]], "below"),
        ([[20, 21, 30, 20]], "above"),  # centres count, not corners
        ([[10, 20, 10, 10]], "left of"),  # the longer axis
        ([[2, 25, 10, 10], [50, 25, 10, 10], [20, 25, 10, 10]], "left of"),  # the mean of a group
    ],
)
def test_relation_between(first: list[list[float]], relation: str) -> None:
    assert relation_between(first, [CENTRE]) == relation
    assert relation_between([CENTRE], first) == INVERSE_RELATIONS[relation]
