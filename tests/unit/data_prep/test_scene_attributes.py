"""data_prep/scene_attributes.py"""

import torch

from data_prep.scene_attributes import (
    KINDS,
    AttributeHeads,
    Canonical,
    count_targets,
    patch_targets,
    side_targets,
)
from ifvit.data.scenes import COLORS, RELATIONS, SHAPES, Description, Group

RED_STARS, BLUE_STAR = Group(2, "red", "star"), Group(1, "blue", "star")
PAIR = Description((BLUE_STAR, RED_STARS), "above")


def test_the_order_of_the_groups_does_not_matter() -> None:
    other_way = Description((RED_STARS, BLUE_STAR), "below")
    assert Canonical.of(PAIR) == Canonical.of(other_way)
    assert Canonical.of(PAIR) != Canonical.of(Description((BLUE_STAR, RED_STARS), "below"))


def test_a_caption_agrees_with_every_scene_it_is_true_of() -> None:
    shown = Canonical.of(PAIR)
    assert shown.agrees_with(Canonical.of(Description(PAIR.groups)))
    assert not shown.agrees_with(Canonical.of(Description(PAIR.groups, "left of")))
    assert not shown.agrees_with(Canonical.of(Description((BLUE_STAR,))))


def test_counts_and_relations_of_a_batch() -> None:
    scenes = [Canonical.of(PAIR), Canonical.of(Description((RED_STARS,))), Canonical.of(Description(PAIR.groups))]
    targets = count_targets(scenes)
    red, blue, star = list(COLORS).index("red"), list(COLORS).index("blue"), SHAPES.index("star")
    assert targets["color"][:, red].tolist() == [2, 2, 2] and targets["color"][:, blue].tolist() == [1, 0, 1]
    assert targets["shape"][:, star].tolist() == [3, 2, 3]
    assert targets["kind"].sum(dim=1).tolist() == [3, 2, 3]


def test_each_group_has_a_side_where_one_is_said() -> None:
    scenes = [Canonical.of(Description(PAIR.groups)), Canonical.of(PAIR), Canonical.of(Description((RED_STARS,)))]
    rows, kinds, sides = side_targets(scenes)
    assert rows.tolist() == [1, 1]
    assert kinds.tolist() == [KINDS.index(("red", "star")), KINDS.index(("blue", "star"))]
    assert [RELATIONS[side] for side in sides] == ["below", "above"]


def test_patches_know_what_covers_them() -> None:
    scene = Description((Group(1, "red", "circle"),))
    covered, centre = patch_targets([scene], [(((16.0, 8.0, 16.0, 16.0),),)], patch_size=8)
    kind = 1 + KINDS.index(("red", "circle"))
    rows = covered.view(8, 8)
    assert (rows[1:3, 2:4] == kind).all() and rows.count_nonzero() == 4
    assert centre.view(8, 8)[2, 3] == kind and centre.count_nonzero() == 1


def test_heads_learn_from_captions_that_leave_out_the_relation() -> None:
    heads = AttributeHeads(8, 8)
    unsaid = Canonical.of(Description(PAIR.groups))
    assert heads.loss(torch.randn(2, 8), [unsaid, unsaid]).isfinite()
    assert heads.loss(torch.randn(2, 8), [unsaid, Canonical.of(PAIR)]).isfinite()
