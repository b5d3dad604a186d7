"""Drawn pictures in the layout of COCO 2014."""

import argparse
import json
from pathlib import Path

import pytest
from PIL import Image

from data_prep import pictures
from ifvit.config.errors import UserError


def make(folder: Path, *arguments: str) -> dict[str, list[dict[str, object]]]:
    parser = argparse.ArgumentParser()
    pictures.add_arguments(parser)
    pictures.run(parser.parse_args([str(folder), *arguments]))
    return json.loads((folder / "annotations" / "captions_train2014.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_layout_is_that_of_coco(tmp_path: Path) -> None:
    document = make(tmp_path / "set")
    assert set(document) == {"info", "licenses", "images", "annotations"}
    assert len(document["images"]) == 64
    assert len(document["annotations"]) == 5 * 64
    assert len({annotation["id"] for annotation in document["annotations"]}) == 5 * 64
    for image in document["images"]:
        with Image.open(tmp_path / "set" / "train2014" / str(image["file_name"])) as picture:
            assert (picture.size, picture.mode) == ((image["width"], image["height"]), "RGB")
        captions = [entry["caption"] for entry in document["annotations"] if entry["image_id"] == image["id"]]
        assert len(set(captions)) == 5


def test_the_caption_says_what_is_drawn(tmp_path: Path) -> None:
    document = make(tmp_path / "set")
    first = {str(entry["image_id"]): str(entry["caption"]) for entry in reversed(document["annotations"])}
    for image in document["images"]:
        number, colour, shape = first[str(image["id"])].split()
        assert (number, shape[-1] == "s") in (("a", False), ("two", True))
        with Image.open(tmp_path / "set" / "train2014" / str(image["file_name"])) as picture:
            counts = {value: count for count, value in picture.getcolors(4096) or []}
        assert len(counts) == 2  # the background and one colour
        assert pictures.COLOURS[colour] in counts
        assert set(counts) & set(pictures.BACKGROUNDS.values())


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        make(tmp_path / name, "--num-images", "8", "--seed", seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    make(tmp_path, "--num-images", "1")
    with pytest.raises(UserError, match="is there already"):
        make(tmp_path, "--num-images", "2")


def test_bad_arguments_get_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--num-images: is 0, must be at least 1"):
        make(tmp_path, "--num-images", "0")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        make(tmp_path / "file")
