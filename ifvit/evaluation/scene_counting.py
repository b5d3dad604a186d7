"""Counting without people: do scenes show what their captions ask for?"""

from typing import Any

from ifvit.data.scene_captions import parse_caption
from ifvit.evaluation.metric import Column, ImageSet, Metric
from ifvit.evaluation.scene_alignment import scene_alignment
from ifvit.evaluation.scene_detector import detect

NO_SCENES = "counts: not every caption is of a scene, so nothing was counted"


def measure(images: ImageSet, real: ImageSet) -> dict[str, Any]:
    """Counts, colours, shapes and relations of the detected shapes, where every prompt is a scene's caption."""
    asked = [parse_caption(prompt) for prompt in images.prompts]
    descriptions = [description for description in asked if description is not None]
    if len(descriptions) < len(asked):
        return {"remark": NO_SCENES}
    return scene_alignment(detect(images.images), descriptions)


METRIC = Metric(
    measure,
    (
        Column("average_match_ratio", "match ratio", decimals=3, more_is_better=True),
        Column("average_error", "average error", decimals=3, more_is_better=False),
        Column("total_count_match", "total count match", decimals=3, more_is_better=True),
        Column("color_accuracy", "color accuracy", decimals=3, more_is_better=True),
        Column("shape_accuracy", "shape accuracy", decimals=3, more_is_better=True),
        Column("relation_accuracy", "relation accuracy", decimals=3, more_is_better=True),
    ),
)
