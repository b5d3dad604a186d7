"""10,000 scenes of `python -m data_prep scenes`: captions and boxes are true."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data_prep.main import main
from ifvit.data.scenes import COLORS, TONES

NUM_TRAIN, NUM_HELD_OUT = 8000, 1000  # 10,000 with val and unseen
SPLITS = ("train", "val", "unseen")
NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
SINGULAR = {f"{shape}s": shape for shape in ("circle", "square", "triangle", "star")} | {"crosses": "cross"}
Kind = tuple[int, str, str]  # count, color, shape


@dataclass(frozen=True)
class Shown:
    """One image as its two annotation files have it; boxes as left, top, width, height."""

    path: Path
    captions: list[str]
    boxes: dict[tuple[str, str], NDArray[np.float64]]  # by color and shape
    areas: float
    background: tuple[str, str]

    @property
    def kinds(self) -> set[Kind]:
        return {(len(boxes), *kind) for kind, boxes in self.boxes.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "world"
    arguments = ["--num-images", str(NUM_TRAIN), "--num-held-out-images", str(NUM_HELD_OUT), "--seed", "7"]
    assert main(["scenes", "--out", str(folder), *arguments]) == 0
    return folder


@pytest.fixture(scope="module")
def shown(world: Path) -> dict[str, list[Shown]]:
    return {split: list(read_shown(world, split)) for split in SPLITS}


def document(folder: Path, kind: str, split: str) -> dict[str, Any]:
    return json.loads((folder / "annotations" / f"{kind}_{split}2014.json").read_text())


def read_shown(folder: Path, split: str) -> Iterator[Shown]:
    captions, boxes, areas = defaultdict(list), defaultdict(lambda: defaultdict(list)), Counter()
    for entry in document(folder, "captions", split)["annotations"]:
        captions[entry["image_id"]].append(entry["caption"])
    instances = document(folder, "instances", split)
    names = {category["id"]: tuple(category["name"].split()) for category in instances["categories"]}
    for entry in instances["annotations"]:
        boxes[entry["image_id"]][names[entry["category_id"]]].append(entry["bbox"])
        areas[entry["image_id"]] += entry["area"]
    for image in instances["images"]:
        arrays = {kind: np.array(found) for kind, found in boxes[image["id"]].items()}
        path = folder / f"{split}2014" / image["file_name"]
        background = tuple(image["scene"]["background"])
        yield Shown(path, captions[image["id"]], arrays, areas[image["id"]], background)


# What a caption claims, read word by word, and whether the annotations bear it out.


def check_caption(text: str, image: Shown) -> tuple[str, ...]:
    """Fails where the caption is wrong or bad English. Returns its words without the nouns: its phrasing."""
    words = text.split(" ")
    phrasing = take_opening(words)
    verb = phrasing[-1] if phrasing[:1] == ["there"] else None
    first = take_noun(words, image)
    assert verb is None or (verb == "is") == (first[0] == 1), text
    relation = take_relation(words)
    groups = {first}
    if relation:
        second = take_noun(words, image)
        groups.add(second)
        assert relation == "and" or relation == measured_relation(image, first, second), text
    elif words[:1] == ["and"]:
        assert words == ["and", "nothing", "else"], text
        words.clear()
        phrasing.append("else")
    assert groups == image.kinds, text
    if words:
        phrasing.append(take_background(words, image))
    assert not words, text
    return (*phrasing, relation)


def take(words: list[str], *expected: str) -> bool:
    """Whether `words` begin with these; if so they are gone."""
    if tuple(words[: len(expected)]) != expected:
        return False
    del words[: len(expected)]
    return True


def take_opening(words: list[str]) -> list[str]:
    openings = (("there", "is"), ("there", "are"), ("a", "picture", "of"), ("an", "image", "with"))
    return [word for opening in openings if take(words, *opening) for word in opening]


def take_noun(words: list[str], image: Shown) -> Kind:
    number, following = words.pop(0), words[0]
    count = NUMBERS[number]
    assert number not in ("a", "an") or (number == "an") == (following[0] in "aeiou"), (number, following)
    size = words.pop(0) if following in ("small", "large") else None
    color, noun = words.pop(0), words.pop(0)
    assert color in COLORS
    assert (noun in SINGULAR) == (count > 1), (number, noun)
    shape = SINGULAR.get(noun, noun)
    sides = image.boxes[color, shape][:, 2:].max(axis=1)
    assert size != "small" or sides.max() <= 12
    assert size != "large" or sides.min() >= 18
    return count, color, shape


def take_relation(words: list[str]) -> str:
    if take(words, "to", "the", "left", "of") or take(words, "left", "of"):
        return "left"
    if take(words, "to", "the", "right", "of") or take(words, "right", "of"):
        return "right"
    if take(words, "under") or take(words, "below"):
        return "below"
    if take(words, "above"):
        return "above"
    return "and" if words[:1] == ["and"] and words[1] in NUMBERS and take(words, "and") else ""


def measured_relation(image: Shown, first: Kind, second: Kind) -> str:
    (x, y), (other_x, other_y) = (
        (image.boxes[kind[1:]][:, :2] + image.boxes[kind[1:]][:, 2:] / 2).mean(axis=0) for kind in (first, second)
    )
    if abs(x - other_x) >= abs(y - other_y):
        return "left" if x < other_x else "right"
    return "above" if y < other_y else "below"


def take_background(words: list[str], image: Shown) -> str:
    assert take(words, "on", "a") and words.pop() == "background"
    assert 1 <= len(words) <= 2
    assert words == [word for word in image.background if word in words]  # the tone before the pattern
    words.clear()
    return "background"


def test_captions_are_true_to_the_annotations_of_10000_scenes(shown: dict[str, list[Shown]]) -> None:
    images = [image for split in SPLITS for image in shown[split]]
    assert len(images) == 10_000
    phrasings = Counter()
    for image in images:
        assert len(image.captions) == len(set(image.captions)) == 5
        phrasings.update(check_caption(text, image) for text in image.captions)
    assert len(phrasings) == 9 + 2 + 4 * 5  # of one group, of two without a relation and with each of the four
    assert min(phrasings.values()) > 200, phrasings


def test_the_words_vary(shown: dict[str, list[Shown]]) -> None:
    found = Counter(word for image in shown["train"] for text in image.captions for word in text.split(" "))
    nouns = [word for pair in SINGULAR.items() for word in pair]
    rest = ("small", "large", "under", "below", *TONES, "plain", "shaded", "striped", "checked")
    assert min(found[word] for word in (*NUMBERS, *COLORS, *nouns, *rest)) > 300, found


def test_combinations_of_unseen_are_not_in_the_other_splits(shown: dict[str, list[Shown]]) -> None:
    seen, in_val = (set().union(*(image.kinds for image in shown[split])) for split in ("train", "val"))
    assert len(seen) == 135 and in_val <= seen  # of 150
    assert all(image.kinds - seen for image in shown["unseen"])
    assert len(set().union(*(image.kinds for image in shown["unseen"])) - seen) == 15


def test_shapes_stay_inside_and_apart(shown: dict[str, list[Shown]]) -> None:
    for image in (image for split in SPLITS for image in shown[split]):
        boxes = np.concatenate(list(image.boxes.values()))
        low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
        assert 1 <= len(boxes) <= 5
        assert low.min() >= 2 and high.max() <= 62
        assert boxes[:, 2:].min() >= 10 and boxes[:, 2:].max() <= 23
        gaps = np.maximum(low[:, None] - high, low - high[:, None]).max(axis=2)
        assert gaps[~np.eye(len(boxes), dtype=bool)].min(initial=3) >= 3


def test_pixels_show_what_is_annotated(shown: dict[str, list[Shown]]) -> None:
    for image in (image for split in SPLITS for image in shown[split][:500]):
        with Image.open(image.path) as opened:
            assert (opened.size, opened.mode) == ((64, 64), "RGB")
            pixels = np.asarray(opened).astype(int)
        is_colored = np.ptp(pixels, axis=2) > 70
        background = np.ones_like(is_colored)
        for (color, _), boxes in image.boxes.items():
            for left, top, width, height in boxes:
                centre = pixels[int(top + height / 2), int(left + width / 2)]
                assert np.abs(centre - np.clip(COLORS[color], 0, 255)).max() <= 11
                background[int(top) : int(top + height) + 2, int(left) : int(left + width) + 2] = False
        assert not (is_colored & background).any()
        assert np.ptp(pixels, axis=2)[background].max() <= 12
        assert is_colored.sum() == pytest.approx(image.areas, rel=0.3)
        low, high = TONES[image.background[0]]
        assert low - 32 <= pixels[background].mean() <= high + 32


def test_instances_are_those_of_coco(world: Path) -> None:
    instances = document(world, "instances", "unseen")
    assert [category["id"] for category in instances["categories"]] == list(range(1, 31))
    assert {(entry["name"].split()[1] == entry["supercategory"]) for entry in instances["categories"]} == {True}
    assert [image["id"] for image in instances["images"]] == list(range(2_000_000_001, 2_000_000_001 + NUM_HELD_OUT))
    assert instances["images"] == document(world, "captions", "unseen")["images"]
    ids = [entry["id"] for entry in instances["annotations"]]
    assert ids == sorted(set(ids))
    for entry in instances["annotations"]:
        left, top, width, height = entry["bbox"]
        x, y = np.array(entry["segmentation"][0]).reshape(-1, 2).T
        assert (x.min(), y.min()) == pytest.approx((left, top), abs=0.01)
        assert (x.max(), y.max()) == pytest.approx((left + width, top + height), abs=0.01)
        assert entry["area"] == pytest.approx(abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2, abs=0.3)
        assert entry["iscrowd"] == 0


def test_what_a_scene_shows_stands_with_its_image(world: Path, shown: dict[str, list[Shown]]) -> None:
    for entry, image in zip(document(world, "captions", "val")["images"], shown["val"], strict=True):
        groups = [(group["count"], group["color"], group["shape"]) for group in entry["scene"]["groups"]]
        assert set(groups) == image.kinds
        relation = entry["scene"]["relation"]
        assert (relation is None) == (len(groups) == 1)
        assert relation is None or relation.removesuffix(" of") == measured_relation(image, *groups)
