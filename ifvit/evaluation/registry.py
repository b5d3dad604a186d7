"""Every metric there is, by the name that results.json has it under."""

from typing import Any

from ifvit.evaluation import clip_score, frechet, scene_alignment
from ifvit.evaluation.metric import ImageSet, Metric

METRICS: dict[str, Metric] = {
    "frechet_distance": frechet.METRIC,
    "clip_score": clip_score.METRIC,
    "scene_alignment": scene_alignment.METRIC,
}


def measure_all(images: ImageSet, real: ImageSet) -> dict[str, dict[str, Any]]:
    """The values of each metric."""
    return {name: metric.measure(images, real) for name, metric in METRICS.items()}
