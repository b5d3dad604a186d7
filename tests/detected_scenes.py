"""What drawn scenes show, against what the detector finds in images of them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_prep.scene_drawing import Scene
from ifvit.evaluation.scene_detector import DetectedShape, detect

Kinds = Counter[tuple[str, str]]


def kinds(shapes: Sequence[DetectedShape]) -> Kinds:
    return Counter((shape.color, shape.shape) for shape in shapes)


def exact_share(images: NDArray[np.uint8], scenes: Sequence[Scene]) -> float:
    """The share of images where just the scene's shapes are found: each colour and shape in its count."""
    expected = [Counter({(g.color, g.shape): g.count for g in scene.description.groups}) for scene in scenes]
    return float(np.mean([kinds(shapes) == each for shapes, each in zip(detect(images), expected, strict=True)]))
