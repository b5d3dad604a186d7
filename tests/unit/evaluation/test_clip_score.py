"""ifvit/evaluation/clip_score.py"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ifvit
from ifvit.encoders.clip import Clip
from ifvit.evaluation.clip_score import METRIC
from ifvit.evaluation.metric import ImageSet, PromptSet
from tests.unit.evaluation.stand_in_clip import image_set

IMAGES = torch.tensor([[2.0, 0.0], [0.0, 0.5]])  # lengths do not matter
PROMPTS = ["a cat", "a dog"]
DIRECTIONS = {"a cat": torch.tensor([3.0, 0.0]), "a dog": torch.tensor([1.0, 0.0])}
PREFIXED = {"A photo depicts a cat": torch.tensor([0.8, 0.6]), "A photo depicts a dog": torch.tensor([0.0, -1.0])}


def test_both_forms_of_known_angles() -> None:
    """Plain cosines 1 and 0; with the prefix 0.8 and -1, of which the paper's form counts the second as 0."""
    of_images = image_set(IMAGES, DIRECTIONS | PREFIXED, PROMPTS)
    values = METRIC.measure(of_images, of_images)
    assert values["cosine"] == pytest.approx(0.5)
    assert values["paper_form"] == pytest.approx(2.5 * (0.8 + 0) / 2)
    assert values["num_truncated"] == 0
    (remark,) = values["remarks"]
    assert "CLIP stand-in" in remark and "2.5 max(cosine, 0) with the caption behind 'A photo depicts'" in remark


def test_no_paper_s_form_with_a_clip_that_does_not_know_its_words() -> None:
    of_images = image_set(IMAGES, DIRECTIONS, PROMPTS)
    values = METRIC.measure(of_images, of_images)
    assert values["cosine"] == pytest.approx(0.5)
    assert "paper_form" not in values
    assert values["remarks"][0].endswith("left out, as this CLIP does not know the words 'A photo depicts'")


@pytest.mark.parametrize("directions, num_truncated", [(DIRECTIONS, 0), (DIRECTIONS | PREFIXED, 2)])
def test_captions_that_were_cut_are_counted_with_the_prefix_where_it_is_used(
    directions: dict[str, Any], num_truncated: int
) -> None:
    of_images = image_set(IMAGES, directions, PROMPTS, num_text_tokens=10)
    values = METRIC.measure(of_images, of_images)
    assert values["num_truncated"] == num_truncated
    assert (
        values["remarks"][1:]
        == ["CLIP score: 2 of 2 captions were cut: CLIP stand-in reads 10 tokens"][: num_truncated // 2]
    )


def test_the_bundled_clip_does_not_know_the_words() -> None:
    clip = Clip.load(str(Path(ifvit.__file__).parent / "encoders/bundled/clip"))
    images = ImageSet(np.zeros((2, 64, 64, 3), np.uint8), PromptSet(["a red star", "a large blue circle"], clip))
    values = METRIC.measure(images, images)
    assert "paper_form" not in values and values["num_truncated"] == 0


def test_prompts_are_encoded_once_for_all_sets_of_images() -> None:
    of_images = image_set(IMAGES, DIRECTIONS | PREFIXED, PROMPTS)
    others = ImageSet(of_images.images, of_images.prompt_set)
    assert METRIC.measure(of_images, others) == METRIC.measure(others, others)
    assert of_images.clip.num_text_calls == 2  # type: ignore[attr-defined]  # without the prefix and with it
