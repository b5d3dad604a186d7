"""ifvit/data/coco.py"""

from pathlib import Path

import pytest

from ifvit.config.errors import UserError
from ifvit.data.coco import coco_files, read_captions, read_coco
from tests.drawn_coco import draw_coco, edit_annotations


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return draw_coco(tmp_path / "coco", num_images=4)


def caption_file(root: Path) -> Path:
    return root / "annotations" / "captions_train2014.json"


def test_ids_ascend_and_captions_follow_their_annotation_ids(root: Path) -> None:
    edit_annotations(
        root,
        lambda content: content["annotations"].extend(
            [{"id": 5000, "image_id": 13, "caption": "last"}, {"id": -1, "image_id": 13, "caption": "first"}]
        ),
    )
    images = read_coco(root, "train")
    assert [image.id for image in images] == [7, 10, 13, 16]
    assert images[2].prompts[0] == "first"
    assert images[2].prompts[-1] == "last"
    assert [len(image.prompts) for image in images] == [1, 2, 5, 1]


def test_file_names_come_from_the_json_never_from_the_id(root: Path) -> None:
    (root / "train2014" / "COCO_train2014_000000000010.jpg").rename(root / "train2014" / "odd name.jpg")
    edit_annotations(root, lambda content: content["images"][2].update(file_name="odd name.jpg"))
    assert read_coco(root, "train")[1].path == root / "train2014" / "odd name.jpg"


def test_any_split_name(tmp_path: Path) -> None:
    draw_coco(tmp_path / "coco", split="rest.of-val", num_images=2)
    assert len(read_coco(tmp_path / "coco", "rest.of-val")) == 2


def remove_captions(content: dict) -> None:
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] not in (10, 13)]


def set_file_name(name: str):
    return lambda content: content["images"][0].update(file_name=name)


@pytest.mark.parametrize(
    "edit, message",
    [
        (remove_captions, r"captions_train2014\.json: images without captions: 10, 13"),
        (lambda c: c["images"].pop(0), r"captions of images that are not listed: 3 \(image_id 16\)"),
        (lambda c: c["images"].append(c["images"][0]), r"image 16 is listed twice"),
        (lambda c: c["annotations"].append(c["annotations"][0]), r"caption \d+ is listed twice"),
        (lambda c: c.update(images=[], annotations=[]), r"lists no images"),
        (lambda c: c.pop("images"), r"has no list 'images'"),
        (lambda c: c["annotations"][1].pop("caption"), r"annotations\[1\] has no 'caption' of type str"),
        (lambda c: c["images"][1].update(id="13"), r"images\[1\] has no 'id' of type int"),
        (lambda c: c["images"].insert(0, None), r"images\[0\] has no 'id' of type int"),
        (lambda c: c["annotations"][0].update(caption="\ud83d"), r"image 16 has a caption .* \(invalid utf-8\)"),
        (lambda c: c["annotations"][0].update(caption=" "), r"image 16 has a caption that cannot be used \(empty\)"),
        (lambda c: c["images"][0].update(id=10**12), r"image 1000000000000: the id must have at most 12 digits"),
        (set_file_name("../secret.jpg"), r"image 16: file_name '\.\./secret\.jpg' must be a file below"),
        (set_file_name("/etc/passwd"), r"image 16: file_name '/etc/passwd' must be a file below"),
        (set_file_name("../" + "x" * 10**6), r"image 16: file_name '\.\./x{100,200}\.\.\. must be a file below"),
        (set_file_name(""), r"image 16: file_name '' must be a file below"),
        (set_file_name("./COCO_train2014_000000000010.jpg"), r"images 16 and 10 have one file_name; keep one of them"),
        (set_file_name("gone.jpg"), r"images whose file is missing: 16 \(.*gone\.jpg\)"),
    ],
)
def test_a_wrong_listing_is_named(root: Path, edit, message: str) -> None:
    edit_annotations(root, edit)
    with pytest.raises(UserError, match=message):
        read_coco(root, "train")


def test_of_many_missing_files_ten_are_named(tmp_path: Path) -> None:
    root = draw_coco(tmp_path / "coco", num_images=13)
    for path in (root / "train2014").iterdir():
        path.unlink()
    with pytest.raises(UserError) as caught:
        read_coco(root, "train")
    assert str(caught.value).count(".jpg") == 10
    assert str(caught.value).endswith("and 3 more")


@pytest.mark.parametrize("text", ["", "{", "[1]", "\udcff"])
def test_a_file_that_is_no_json(root: Path, text: str) -> None:
    caption_file(root).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"captions_train2014\.json: (cannot be read as JSON|has no list)"):
        read_coco(root, "train")


def test_missing_folders_and_files_name_the_field(root: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.coco_root: .*nowhere is no folder"):
        read_coco(root / "nowhere", "train")
    with pytest.raises(UserError, match=r"^data\.split: .*captions_test2014\.json is missing"):
        read_coco(root, "test")
    (root / "train2014").rename(root / "elsewhere")
    with pytest.raises(UserError, match=r"^data\.split: the folder .*train2014 is missing"):
        read_coco(root, "train")


def test_captions_are_read_as_they_are_also_bad_ones(root: Path) -> None:
    edit_annotations(root, lambda content: content["annotations"][0].update(caption=""))
    for path in (root / "train2014").iterdir():
        path.unlink()
    names, captions = read_captions(coco_files(root, "train")[0])
    assert list(names) == list(captions) == [7, 10, 13, 16]
    assert names[7] == "COCO_train2014_000000000007.jpg"
    assert captions[16] == [""]


def test_bytes_that_are_no_utf8_are_the_fault_of_their_caption(root: Path) -> None:
    file = caption_file(root)
    file.write_bytes(file.read_bytes().replace(b'"caption": "', b'"caption": "\xff', 1))
    _, captions = read_captions(file)
    assert sum(caption.startswith("\udcff") for some in captions.values() for caption in some) == 1
