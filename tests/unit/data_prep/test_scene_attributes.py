"""data_prep/scene_attributes.py"""

import torch

from data_prep.scene_attributes import AttributeHeads, agree, count_targets, patch_targets, side_targets
from ifvit.data.scenes import COLORS, KINDS, RELATIONS, SHAPES, Description, Group

RED_STARS, BLUE_STAR = Group(2, "red", "star"), Group(1, "blue", "star")
PAIR = Description((BLUE_STAR, RED_STARS), "above")


def test_a_caption_agrees_with_every_scene_it_is_true_of() -> None:
    shown = PAIR.in_order()
    assert agree(shown, Description(PAIR.groups).in_order()) and agree(Description(PAIR.groups).in_order(), shown)
    assert agree(shown, Description((RED_STARS, BLUE_STAR), "below").in_order())
    assert not agree(shown, Description(PAIR.groups, "left of").in_order())
    assert not agree(shown, Description((BLUE_STAR,)))


def test_counts_and_relations_of_a_batch() -> None:
    scenes = [PAIR.in_order(), Description((RED_STARS,)).in_order(), Description(PAIR.groups).in_order()]
    targets = count_targets(scenes)
    red, blue, star = list(COLORS).index("red"), list(COLORS).index("blue"), SHAPES.index("star")
    assert targets["color"][:, red].tolist() == [2, 2, 2] and targets["color"][:, blue].tolist() == [1, 0, 1]
    assert targets["shape"][:, star].tolist() == [3, 2, 3]
    assert targets["kind"].sum(dim=1).tolist() == [3, 2, 3]


def test_each_group_has_a_side_where_one_is_said() -> None:
    scenes = [Description(PAIR.groups).in_order(), PAIR.in_order(), Description((RED_STARS,)).in_order()]
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
    unsaid = Description(PAIR.groups).in_order()
    assert heads.loss(torch.randn(2, 8), [unsaid, unsaid]).isfinite()
    assert heads.loss(torch.randn(2, 8), [unsaid, PAIR.in_order()]).isfinite()
