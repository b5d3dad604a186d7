"""data_prep/scene_drawing.py"""

import random
from collections import Counter

import numpy as np
import pytest

from data_prep.scene_drawing import Scene, SceneOptions, draw_scene, largest_size, shape_coverage
from ifvit.data.scenes import COLORS, MAX_COUNT, OUTLINES, RELATIONS, SHAPES, TONES, Group, relation_between


def scenes(options: SceneOptions, number: int) -> list[Scene]:
    return [draw_scene(options, random.Random(seed)) for seed in range(number)]


def all_groups(drawn: list[Scene]) -> list[Group]:
    return [group for scene in drawn for group in scene.description.groups]


def test_the_generator_decides_everything() -> None:
    first, again, other = (draw_scene(SceneOptions(), random.Random(seed)) for seed in (1, 1, 2))
    assert (first.description, first.boxes, first.background) == (again.description, again.boxes, again.background)
    assert np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, other.pixels)


def test_everything_is_drawn() -> None:
    drawn = scenes(SceneOptions(), 400)
    groups = all_groups(drawn)
    assert {group.count for group in groups} == set(range(1, MAX_COUNT + 1))
    assert {(group.color, group.shape) for group in groups} == {(color, shape) for color in COLORS for shape in SHAPES}
    assert len({scene.background for scene in drawn}) == 12
    assert {size for scene in drawn for size in scene.sizes} == {"small", "large", ""}
    relations = Counter(scene.description.relation for scene in drawn)
    assert set(relations) == {None, *RELATIONS} and min(relations.values()) > 20


def test_options_are_obeyed() -> None:
    options = SceneOptions(
        3, ("red", "blue"), ("star", "cross"), ("dark", "light"), ("plain",), min_size=12, max_size=16
    )
    drawn = scenes(options, 100)
    assert {group.color for group in all_groups(drawn)} == {"red", "blue"}
    assert {group.shape for group in all_groups(drawn)} == {"star", "cross"}
    assert {scene.background for scene in drawn} == {("dark", "plain"), ("light", "plain")}
    totals = {sum(group.count for group in scene.description.groups) for scene in drawn}
    assert totals == {1, 2, 3}
    sides = {side for scene in drawn for boxes in scene.boxes for box in boxes for side in box[2:]}
    assert sides == {12, 13, 14, 15, 16}
    assert not any(group.is_held_out for group in all_groups(drawn))


def test_one_shape_at_most_makes_no_pair() -> None:
    assert all(len(scene.description.groups) == 1 for scene in scenes(SceneOptions(max_count=1), 50))


def test_each_held_out_scene_shows_a_held_out_group() -> None:
    drawn = scenes(SceneOptions(held_out=True), 200)
    assert all(scene.description.is_held_out for scene in drawn)
    assert any(len(scene.description.groups) == 2 for scene in drawn)
    assert {group for group in all_groups(drawn) if group.is_held_out} == set(SceneOptions().held_out_groups)


def test_boxes_belong_to_their_groups() -> None:
    for scene in scenes(SceneOptions(), 200):
        groups, relation = scene.description.groups, scene.description.relation
        assert [len(boxes) for boxes in scene.boxes] == [group.count for group in groups]
        assert len({(group.color, group.shape) for group in groups}) == len(groups)
        assert relation is None if len(groups) == 1 else relation_between(*scene.boxes) == relation


@pytest.mark.parametrize("count", range(1, MAX_COUNT + 1))
def test_the_largest_size_fits_surely(count: int) -> None:
    size = largest_size(count)
    drawn = scenes(SceneOptions(max_count=count, min_size=size, max_size=size), 30)
    for scene in drawn:
        boxes = np.array([box for boxes in scene.boxes for box in boxes])
        assert (boxes[:, 2:] == size).all()
        assert boxes[:, :2].min() >= 2 and (boxes[:, :2] + boxes[:, 2:]).max() <= 62
    assert count in {group.count for group in all_groups(drawn)}


@pytest.mark.parametrize("count, size", [(1, 60), (2, 28), (4, 28), (5, 18)])
def test_largest_sizes(count: int, size: int) -> None:
    assert largest_size(count) == size


def test_backgrounds_are_grey_of_their_tone_and_follow_their_pattern() -> None:
    for scene in scenes(SceneOptions(max_count=1, max_size=10), 200):
        tone, pattern = scene.background
        ((left, top, side, _),) = scene.boxes[0]
        outside = np.ones((64, 64), bool)
        outside[int(top) : int(top + side) + 2, int(left) : int(left + side) + 2] = False
        background = scene.pixels[outside].astype(int)
        assert np.ptp(background, axis=1).max() <= 11
        low, high = TONES[tone]
        assert low - 25 <= background.min() and background.max() <= high + 25
        assert (np.ptp(background, axis=0).max() == 0) == (pattern == "plain")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_fills_its_box_and_nothing_beside_it(shape: str) -> None:
    coverage = shape_coverage(shape, length=4 * 20, offset_x=2, offset_y=1, side=22)  # at 0.5, 0.25, of side 20
    rows, columns = coverage.sum(axis=1), coverage.sum(axis=0)
    assert np.flatnonzero(rows > 0).tolist() == list(range(21))
    assert np.flatnonzero(columns > 0).tolist() == list(range(21))
    assert coverage[10, 10] == 1 and coverage.min() >= 0 and coverage.max() <= 1
    assert ((coverage > 0) & (coverage < 1)).any()  # smooth edges
    outline = np.array(OUTLINES[shape]) * 20
    x, y = outline.T if len(outline) else np.zeros((2, 1))
    area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2 or np.pi * 10**2
    assert coverage.sum() == pytest.approx(area, rel=0.06)
