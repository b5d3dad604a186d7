"""ifvit/evaluation/clip_score.py"""

import pytest
import torch

from ifvit.evaluation.clip_score import METRIC
from tests.unit.evaluation.stand_in_clip import image_set


def test_both_forms_of_known_angles() -> None:
    """Plain cosines 1 and 0; with the prefix 0.8 and -1, of which the paper's form counts the second as 0."""
    images = torch.tensor([[2.0, 0.0], [0.0, 0.5]])  # lengths do not matter
    directions = {
        "a cat": torch.tensor([3.0, 0.0]),
        "a dog": torch.tensor([1.0, 0.0]),
        "A photo depicts a cat": torch.tensor([0.8, 0.6]),
        "A photo depicts a dog": torch.tensor([0.0, -1.0]),
    }
    of_images = image_set(images, directions, ["a cat", "a dog"])
    values = METRIC.measure(of_images, of_images)
    assert values["cosine"] == pytest.approx(0.5)
    assert values["paper_form"] == pytest.approx(2.5 * (0.8 + 0) / 2)
    assert "CLIP stand-in" in values["remark"] and "'A photo depicts'" in values["remark"]
