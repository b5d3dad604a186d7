"""data_prep/coco_source.py"""

from pathlib import Path

import pytest

from data_prep.coco_source import CocoSource
from ifvit.config.errors import UserError
from tests.drawn_coco import draw_coco, edit_annotations


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return draw_coco(tmp_path / "coco", num_images=4)


def test_what_read_coco_refuses_is_listed_with_its_fault(root: Path) -> None:
    def edit(content: dict) -> None:
        for annotation in content["annotations"]:
            if annotation["image_id"] == 7:
                annotation["caption"] = " "
        content["annotations"].append({"id": 10**6, "image_id": 13, "caption": "a\0b"})

    edit_annotations(root, edit)
    (root / "train2014" / "COCO_train2014_000000000010.jpg").unlink()  # seen when it is read
    samples = list(CocoSource(str(root), "train").samples())
    assert [(sample.id, sample.fault, dict(sample.dropped)) for sample in samples] == [
        (7, "no captions", {"empty": 1}), (10, None, {}), (13, None, {"NUL character": 1}), (16, None, {}),
    ]  # fmt: skip
    assert samples[1].image == "COCO_train2014_000000000010.jpg"


def test_a_listing_that_contradicts_itself_is_an_error(root: Path) -> None:
    edit_annotations(root, lambda content: content["images"].append(content["images"][0]))
    with pytest.raises(UserError, match="image 16 is listed twice"):
        list(CocoSource(str(root), "train").samples())


def test_the_fingerprint_is_that_of_the_json(root: Path) -> None:
    source = CocoSource(str(root), "train")
    before = source.fingerprint()
    (root / "train2014" / "COCO_train2014_000000000010.jpg").unlink()
    assert source.fingerprint() == before
    edit_annotations(root, lambda content: content["annotations"][0].update(caption="another"))
    assert source.fingerprint() != before
