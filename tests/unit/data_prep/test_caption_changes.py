"""data_prep/caption_changes.py"""

import itertools
import random

import pytest

from data_prep.caption_changes import ATTRIBUTES, changeable, changed
from ifvit.data.scenes import COLORS, SHAPES, Description, Group

PAIR = Description((Group(2, "red", "star"), Group(2, "blue", "star")), "left of")
SINGLE = Description((Group(5, "red", "star"),))


def differences(first: Description, second: Description) -> list[str]:
    found = ["relation"] if first.relation != second.relation else []
    for one, other in zip(first.groups, second.groups, strict=True):
        found += [name for name in ("count", "color", "shape") if getattr(one, name) != getattr(other, name)]
    return found


@pytest.mark.parametrize("scene", [PAIR, SINGLE])
def test_exactly_one_attribute_is_another(scene: Description) -> None:
    generator = random.Random(0)
    for attribute in changeable(scene):
        for _ in range(50):
            other = changed(scene, attribute, generator)
            assert differences(scene, other) == [attribute]
            assert sum(group.count for group in other.groups) <= 5
            assert not other.is_held_out
            assert len({(group.color, group.shape) for group in other.groups}) == len(other.groups)


def test_a_relation_changes_only_where_there_is_one() -> None:
    assert changeable(PAIR) == list(ATTRIBUTES)
    assert changeable(SINGLE) == ["count", "color", "shape"]


def test_every_scene_can_be_changed() -> None:
    generator = random.Random(0)
    for count, color, shape in itertools.product(range(1, 6), COLORS, SHAPES):
        scene = Description((Group(count, color, shape),))
        for attribute in ("count", "color", "shape"):
            other = changed(scene, attribute, generator)
            assert differences(scene, other) == [attribute] and not other.is_held_out
