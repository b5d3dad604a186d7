"""The alignment numbers against counts made by hand."""

import json

import pytest
import torch

from ifvit.data.scenes import SHAPES, Description, Group
from ifvit.evaluation.scene_alignment import METRIC, NO_SCENES, scene_alignment
from ifvit.evaluation.scene_detector import DetectedShape
from tests.unit.evaluation.stand_in_clip import image_set


def shapes(color: str, shape: str, *lefts: float, top: float = 20) -> list[DetectedShape]:
    """Shapes of one kind, one at each of `lefts`."""
    return [DetectedShape(color, shape, (left, top, 10, 10)) for left in lefts]


TWO_RED_CIRCLES = Description((Group(2, "red", "circle"),))
STAR_LEFT_OF_SQUARES = Description((Group(1, "blue", "star"), Group(3, "green", "square")), "left of")


def test_counts_by_hand() -> None:
    result = scene_alignment(
        [
            shapes("red", "circle", 2, 20),  # as asked
            shapes("red", "circle", 2) + shapes("blue", "circle", 20, 40),  # one of two, and three in all
            shapes("blue", "star", 2) + shapes("green", "square", 20, 35, 50),  # as asked
            shapes("green", "square", 2, 14, 26, 38, 50),  # no star, two squares too many
        ],
        [TWO_RED_CIRCLES, TWO_RED_CIRCLES, STAR_LEFT_OF_SQUARES, STAR_LEFT_OF_SQUARES],
    )
    nothing = {"average_error": None, "average_match_ratio": None, "num_groups": 0}
    circles = {"average_error": 1 / 2, "average_match_ratio": 1 / 2, "num_groups": 2}
    stars = {"average_error": 1 / 2, "average_match_ratio": 1 / 2, "num_groups": 2}
    squares = {"average_error": 2 / 2, "average_match_ratio": 1 / 2, "num_groups": 2}
    assert (result["num_images"], result["num_groups"]) == (4, 6)
    assert result["average_error"] == (0 + 1 + 0 + 0 + 1 + 2) / 6
    assert result["average_match_ratio"] == 3 / 6
    assert result["by_shape"] == {
        "circle": circles, "square": squares, "triangle": nothing, "star": stars, "cross": nothing,
    }  # fmt: skip
    assert result["by_count"] == {"1": stars, "2": circles, "3": squares, "4": nothing, "5": nothing}
    assert result["by_shape_and_count"]["star"] == {"1": stars} | {str(count): nothing for count in (2, 3, 4, 5)}
    assert result["total_count_match"] == 2 / 4


HELD_OUT, PARTNER = Group(2, "green", "circle"), Group(2, "red", "star")


def test_of_a_pair_with_a_held_out_group_only_that_counts() -> None:
    """As in split unseen: the partner is a combination that training has shown."""
    assert HELD_OUT.is_held_out and not PARTNER.is_held_out
    mixed, trained = Description((PARTNER, HELD_OUT), "left of"), Description((PARTNER,))
    stars, circle = shapes("red", "star", 2, 15), shapes("green", "circle", 30)
    result = scene_alignment([stars + circle], [mixed])
    missed = {"average_error": 1.0, "average_match_ratio": 0.0, "num_groups": 1}
    met = {"average_error": 0.0, "average_match_ratio": 1.0, "num_groups": 1}
    assert {name: result[name] for name in missed} == missed
    assert result["by_shape"]["circle"] == missed and result["by_shape"]["star"]["num_groups"] == 0
    assert result["by_count"]["2"] == result["by_shape_and_count"]["circle"]["2"] == missed
    for part, agreement in (("held_out", missed), ("trained", met)):
        assert result[part] == agreement | {"by_count": result[part]["by_count"]}
        assert result[part]["by_count"]["2"] == agreement and result[part]["by_count"]["1"]["num_groups"] == 0
    assert result["total_count_match"] == 0 and result["shape_accuracy"] == 1

    result = scene_alignment([stars + circle, stars], [mixed, trained])
    assert (result["num_groups"], result["average_match_ratio"]) == (2, 1 / 2)
    assert (result["held_out"]["num_groups"], result["trained"]["num_groups"]) == (1, 2)


def test_the_right_number_of_wrong_shapes_matches_only_in_total() -> None:
    result = scene_alignment([shapes("blue", "circle", 2, 20)], [TWO_RED_CIRCLES])
    assert (result["total_count_match"], result["average_match_ratio"], result["average_error"]) == (1, 0, 2)


def test_color_and_shape_accuracy_are_means_over_images() -> None:
    result = scene_alignment(
        [
            shapes("red", "circle", 2) + shapes("blue", "circle", 20, 30) + shapes("red", "star", 40),
            shapes("blue", "square", 2),
            [],
        ],
        [TWO_RED_CIRCLES, STAR_LEFT_OF_SQUARES, TWO_RED_CIRCLES],
    )
    assert result["color_accuracy"] == pytest.approx((2 / 4 + 1 + 0) / 3)
    assert result["shape_accuracy"] == pytest.approx((3 / 4 + 1 + 0) / 3)


@pytest.mark.parametrize(
    "found, expected",
    [
        (shapes("blue", "star", 2) + shapes("green", "square", 40), 1),  # whatever the counts are
        (shapes("blue", "star", 50) + shapes("green", "square", 2, 14, 26), 0),
        (shapes("blue", "star", 20, top=2) + shapes("green", "square", 20, top=40), 0),
        (shapes("blue", "star", 2), 0),
        (shapes("green", "square", 2), 0),
        (shapes("red", "star", 2) + shapes("green", "square", 40), 0),
    ],
)
def test_relation_needs_both_groups_in_their_places(found: list[DetectedShape], expected: float) -> None:
    result = scene_alignment([found, []], [STAR_LEFT_OF_SQUARES, TWO_RED_CIRCLES])
    assert (result["relation_accuracy"], result["num_relations"]) == (expected, 1)


def test_means_over_nothing_are_null() -> None:
    result = scene_alignment([], [])
    numbers = [
        value for key, value in result.items() if not key.startswith(("by_", "num_")) and not isinstance(value, dict)
    ]
    assert len(numbers) == 6 and not any(number is not None for number in numbers)
    assert (result["num_images"], result["num_groups"], result["num_relations"]) == (0, 0, 0)
    assert set(result["by_shape_and_count"]) == set(SHAPES)
    assert result["held_out"]["average_match_ratio"] is None and result["trained"]["num_groups"] == 0


def test_the_result_is_json() -> None:
    result = scene_alignment([shapes("red", "circle", 2)], [TWO_RED_CIRCLES])
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["relation_accuracy"] is None


def test_what_counts_is_remarked_and_nothing_is_counted_where_a_caption_is_no_scene_s() -> None:
    embeds = torch.zeros(2, 1)
    scenes = image_set(embeds, prompts=["a red circle", "two green circles"])
    values = METRIC.measure(scenes, scenes)
    assert values["average_match_ratio"] == 0 and values["held_out"]["num_groups"] == 1
    (remark,) = values["remarks"]
    assert "over those groups alone" in remark and "compare splits at equal shape and count" in remark
    mixed = image_set(embeds, prompts=["a red circle", "a man"])
    assert METRIC.measure(mixed, mixed) == {"remarks": [NO_SCENES]}
