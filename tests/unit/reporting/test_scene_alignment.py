"""ifvit/reporting/scene_alignment.py"""

from ifvit.data.scenes import Description, Group
from ifvit.evaluation.scene_alignment import scene_alignment
from ifvit.evaluation.scene_detector import DetectedShape
from ifvit.reporting.scene_alignment import scene_alignment_tables

BOX = (0.0, 0.0, 10.0, 10.0)
RED_STAR, RED_CIRCLE = DetectedShape("red", "star", BOX), DetectedShape("red", "circle", BOX)


def test_each_shape_and_count_has_its_numbers() -> None:
    one, two, circle = Group(1, "red", "star"), Group(2, "red", "star"), Group(1, "red", "circle")
    alignment = scene_alignment(
        [[RED_STAR], [RED_STAR, RED_STAR], [], [RED_CIRCLE]],
        [Description((group,)) for group in (one, one, two, circle)],
    )
    text = scene_alignment_tables({"splits": {"val": {"generated": {"scene_alignment": alignment}}}})
    assert text.splitlines() == [
        "val: match ratio, average error (groups)",
        "  asked for               1               2",
        "  circle     1.00, 0.00 (1)               -",
        "  star       0.50, 0.50 (2)  0.00, 2.00 (1)",
        "  any shape  0.67, 0.33 (3)  0.00, 2.00 (1)",
    ]


def test_nothing_was_counted() -> None:
    remark = {"scene_alignment": {"remarks": ["counts: not every caption is of a scene"]}}
    assert scene_alignment_tables({"splits": {"val": {"generated": remark}}}) == ""
