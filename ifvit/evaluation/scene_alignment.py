"""How far images show what their prompts ask for, in numbers: counts, colours, shapes and relations of scenes.

The paper (arXiv 2403.16530) counts one object in each image, and people counted. Here an object is a shape of some
colour, a prompt asks for one or two of them, and a detector counts: each group of a prompt is compared, its count in
the image with its count in the prompt.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from ifvit.data.scene_captions import parse_caption
from ifvit.data.scenes import MAX_COUNT, SHAPES, Description, Group, relation_between
from ifvit.evaluation.metric import Column, ImageSet, Metric
from ifvit.evaluation.scene_detector import DetectedShape, detect

Compared = Sequence[tuple[Group, int]]  # a prompt's group, and its count in the image

NO_SCENES = "counts: not every caption is of a scene, so nothing was counted"
WHAT_COUNTS = (
    "match ratio and average error: over the groups of shapes that captions ask for; where a caption asks for a "
    "combination kept out of training (all of unseen do), over those groups alone. Splits ask for other shapes and "
    "counts, so compare splits at equal shape and count"
)


def measure(images: ImageSet, real: ImageSet) -> dict[str, Any]:
    """`scene_alignment` of the detected shapes, where every prompt is a scene's caption."""
    asked = [parse_caption(prompt) for prompt in images.prompts]
    descriptions = [description for description in asked if description is not None]
    if len(descriptions) < len(asked):
        return {"remarks": [NO_SCENES]}
    return scene_alignment(detect(images.images), descriptions) | {"remarks": [WHAT_COUNTS]}


def scene_alignment(detections: Sequence[Sequence[DetectedShape]], prompts: Sequence[Description]) -> dict[str, Any]:
    """The shapes detected in each image against what its prompt asks for; ready for JSON, a mean over nothing is None.

    - `average_error`, `average_match_ratio`, `num_groups`: see `count_agreement`; once for all groups that count (see
      `counting_groups`), and again `by_shape`, `by_count` and `by_shape_and_count`, each as the prompt has it.
    - `held_out`, `trained`: the same and `by_count` over every group of all prompts that is, or is not, held out.
    - `total_count_match`: the share of images with as many shapes of any kind as the prompt asks for in all.
    - `color_accuracy`, `shape_accuracy`: the share of an image's shapes whose colour (shape) the prompt asks for, 0 if
      there are none; mean over images.
    - `relation_accuracy`: of the `num_relations` prompts that state one, the share whose groups are both found, in
      whatever count, and stand so.
    """
    pairs = list(zip(detections, prompts, strict=True))
    assert all(len({object_of(group) for group in prompt.groups}) == len(prompt.groups) for prompt in prompts)
    every = [(group, len(boxes_of(group, shapes))) for shapes, prompt in pairs for group in prompt.groups]
    compared = [(group, len(boxes_of(group, shapes))) for shapes, prompt in pairs for group in counting_groups(prompt)]
    related = [(shapes, prompt) for shapes, prompt in pairs if prompt.relation is not None]
    return {
        "num_images": len(pairs),
        **count_agreement(compared),
        "by_shape": {shape: count_agreement(of_shape(compared, shape)) for shape in SHAPES},
        "by_count": by_count(compared),
        "by_shape_and_count": {shape: by_count(of_shape(compared, shape)) for shape in SHAPES},
        "held_out": with_by_count([pair for pair in every if pair[0].is_held_out]),
        "trained": with_by_count([pair for pair in every if not pair[0].is_held_out]),
        "total_count_match": mean(
            len(shapes) == sum(group.count for group in prompt.groups) for shapes, prompt in pairs
        ),
        "color_accuracy": mean(
            mean(shape.color in {group.color for group in prompt.groups} for shape in shapes) or 0.0
            for shapes, prompt in pairs
        ),
        "shape_accuracy": mean(
            mean(shape.shape in {group.shape for group in prompt.groups} for shape in shapes) or 0.0
            for shapes, prompt in pairs
        ),
        "relation_accuracy": mean(relation_holds(shapes, prompt) for shapes, prompt in related),
        "num_relations": len(related),
    }


def counting_groups(prompt: Description) -> list[Group]:
    """The groups whose counts a prompt is measured by: its held-out ones, or all where none is.

    In split unseen one group of a pair is enough to make the scene held out; the other may be a combination that
    training has shown, and would make unseen look easier than it is.
    """
    return [group for group in prompt.groups if group.is_held_out] or list(prompt.groups)


def count_agreement(compared: Compared) -> dict[str, Any]:
    """Eq. 9 and Eq. 10 of the paper over the N `compared` groups; group i has p_i in the prompt, c_i in the image.

    average_error       = 1/N sum_i |c_i - p_i|  (9)
    average_match_ratio = 1/N sum_i [c_i = p_i]  (10)
    """
    return {
        "average_error": mean(abs(in_image - group.count) for group, in_image in compared),
        "average_match_ratio": mean(in_image == group.count for group, in_image in compared),
        "num_groups": len(compared),
    }


def with_by_count(compared: Compared) -> dict[str, Any]:
    return {**count_agreement(compared), "by_count": by_count(compared)}


def by_count(compared: Compared) -> dict[str, dict[str, Any]]:
    """`count_agreement` for each count in the prompt; JSON knows only text as keys."""
    return {
        str(count): count_agreement([pair for pair in compared if pair[0].count == count])
        for count in range(1, MAX_COUNT + 1)
    }


def of_shape(compared: Compared, shape: str) -> Compared:
    return [pair for pair in compared if pair[0].shape == shape]


def object_of(thing: Group | DetectedShape) -> tuple[str, str]:
    """What the paper counts: here, shapes of one colour."""
    return thing.color, thing.shape


def boxes_of(group: Group, shapes: Iterable[DetectedShape]) -> list[tuple[float, float, float, float]]:
    """The boxes of the detected shapes that the group may be: as many as are in the image, not as it asks for."""
    return [shape.box for shape in shapes if object_of(shape) == object_of(group)]


def relation_holds(shapes: Sequence[DetectedShape], prompt: Description) -> bool:
    first, second = (boxes_of(group, shapes) for group in prompt.groups)
    return bool(first and second) and relation_between(first, second) == prompt.relation


def mean(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else None


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
