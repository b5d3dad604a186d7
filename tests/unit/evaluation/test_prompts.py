"""ifvit/evaluation/prompts.py"""

from pathlib import Path

import pytest

from ifvit.config.errors import UserError
from ifvit.data.coco import CaptionedImage
from ifvit.evaluation import prompts as prompts_module
from ifvit.evaluation.prompts import PromptList, default_splits, prompt_list
from tests.drawn_coco import draw_coco, edit_annotations


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_coco(tmp_path_factory.mktemp("coco"), "val", num_images=30)


def test_the_first_ids_with_one_of_their_own_captions_each(coco: Path) -> None:
    listed = prompt_list(coco, "val", 20)
    assert [image.id for image in listed.images] == [7 + 3 * number for number in range(20)]
    assert all(prompt in image.prompts for image, prompt in zip(listed.images, listed.prompts, strict=True))
    places = {image.prompts.index(prompt) for image, prompt in zip(listed.images, listed.prompts, strict=True)}
    assert places == {0, 1, 2}  # not always the first


def test_the_list_is_the_same_every_time_and_a_longer_one_begins_with_it(coco: Path) -> None:
    listed, longer = prompt_list(coco, "val", 10), prompt_list(coco, "val", 20)
    assert listed == prompt_list(coco, "val", 10)
    assert listed.digest == prompt_list(coco, "val", 10).digest != longer.digest
    assert longer.prompts[:10] == listed.prompts


def test_all_images_up_to_500_by_default(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(prompt_list(coco, "val").prompts) == 30
    monkeypatch.setattr(prompts_module, "DEFAULT_NUM_IMAGES", 8)
    assert len(prompt_list(coco, "val").prompts) == 8


def test_more_images_than_there_are_is_an_error(coco: Path) -> None:
    with pytest.raises(UserError, match=r"^--num-images: is 31, split val of .* has 30 images$"):
        prompt_list(coco, "val", 31)


def test_a_split_that_is_too_small_to_measure_is_an_error(tmp_path: Path) -> None:
    root = draw_coco(tmp_path / "coco", "val", num_images=1)
    with pytest.raises(UserError, match=r"^--splits: split val of .* has 1 image, a distance needs at least 2$"):
        prompt_list(root, "val")


def test_the_digest_sees_a_changed_caption(coco: Path, tmp_path: Path) -> None:
    copy = draw_coco(tmp_path / "coco", "val", num_images=30)
    assert prompt_list(copy, "val").digest == prompt_list(coco, "val").digest
    edit_annotations(copy, lambda content: [entry.update(caption="new") for entry in content["annotations"]], "val")
    assert prompt_list(copy, "val").digest != prompt_list(coco, "val").digest


def test_images_of_one_prompt_get_different_numbers() -> None:
    images = tuple(CaptionedImage(number, Path("x.png"), ("a",)) for number in range(5))
    assert PromptList("val", images, ("a", "b", "a", "a", "b")).numbers == [0, 0, 1, 2, 1]


def test_default_splits_are_those_that_are_there(tmp_path: Path) -> None:
    root = draw_coco(tmp_path / "coco", "train", num_images=1)
    with pytest.raises(UserError, match=r"^--splits: .* has neither val nor unseen.*--coco-root"):
        default_splits(root)
    draw_coco(root, "unseen", num_images=1)
    assert default_splits(root) == ["unseen"]
    draw_coco(root, "val", num_images=1)
    assert default_splits(root) == ["val", "unseen"]
