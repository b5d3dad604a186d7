"""data_prep/scenes.py: 10,000 scenes whose captions and boxes are true, and what the command keeps and refuses."""

import errno
import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image

from data_prep import scene_folder
from data_prep.folder_lock import only_writer
from data_prep.main import main
from ifvit.data.coco import read_coco
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


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "small"
    assert draw(folder) == 0
    return folder


def draw(folder: Path, *options: str) -> int:
    """Some chunks of train, one of val and of unseen."""
    return main(["scenes", "--out", str(folder), "--num-images", "250", "--num-held-out-images", "20", *options])


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


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


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


def test_the_layout_is_that_of_coco(small: Path) -> None:
    images = {f"{split}2014" for split in SPLITS}
    assert {path.name for path in small.iterdir()} == {".lock", "scenes.json", "annotations", *images}
    annotations = {path.name for path in (small / "annotations").iterdir()}
    assert annotations == {f"{kind}_{split}2014.json" for kind in ("captions", "instances") for split in SPLITS}
    settings = json.loads((small / "scenes.json").read_text())
    assert all(document(small, "captions", split)["info"]["settings"] == settings for split in SPLITS)


@pytest.mark.parametrize("split", SPLITS)
def test_read_coco_reads_it(small: Path, split: str) -> None:
    images = read_coco(small, split)
    assert len(images) == (250 if split == "train" else 20)
    assert images[0].path.name == f"scene_{split}_{images[0].id:012d}.png"
    assert all(len(image.prompts) == 5 for image in images)


# What the command keeps, refuses and goes on with.


def test_neither_workers_nor_the_number_of_images_change_a_scene(small: Path, tmp_path: Path) -> None:
    draw(tmp_path / "same", "--workers", "1")
    assert contents(tmp_path / "same") == contents(small)
    draw(tmp_path / "fewer", "--num-images", "110", "--num-held-out-images", "30", "--workers", "3")
    for split, number in (("train", 110), ("val", 20), ("unseen", 20)):
        for kind in ("captions", "instances"):
            ids = {image["id"] for image in document(small, kind, split)["images"][:number]}
            of_few, of_many = (
                [entry for entry in document(folder, kind, split)["annotations"] if entry["image_id"] in ids]
                for folder in (tmp_path / "fewer", small)
            )
            assert of_few == of_many
    draw(tmp_path / "other", "--seed", "1")
    assert document(tmp_path / "other", "captions", "val")["images"] != document(small, "captions", "val")["images"]


def test_a_second_run_keeps_what_is_finished(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*.*") if path.name != ".lock"}
    assert draw(small, "--colors", "purple", "blue", "green", "yellow", "orange", "red") == 0  # in any order
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert capsys.readouterr().out.count("(were there already)") == 3


@pytest.mark.parametrize(
    "lost", ["annotations/captions_train2014.json", "annotations/instances_val2014.json", "unseen2014/*7.png"]
)
def test_what_is_lost_is_made_again(small: Path, lost: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(small)
    for path in small.glob(lost):
        path.unlink()
    assert contents(small) != before
    assert draw(small) == 0
    assert contents(small) == before
    assert capsys.readouterr().out.count("(were there already)") == 2


def test_an_interrupted_run_is_completed_by_the_same_command(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    for _ in range(2):  # in a new folder, and in one that has lost an image
        with monkeypatch.context() as patch:
            patch.setattr(scene_folder, "write_document", interrupt)
            assert draw(tmp_path) == 130
        assert not (tmp_path / "annotations" / "captions_train2014.json").exists()
        assert draw(tmp_path) == 0
        assert contents(tmp_path) == contents(small)
        next(tmp_path.glob("train2014/*.png")).unlink()


def test_a_killed_run_leaves_no_process_and_is_completed(small: Path, tmp_path: Path, repository: Path) -> None:
    folder = tmp_path / "set"
    options = ["--out", str(folder), "--num-images", "250", "--num-held-out-images", "20", "--workers", "2"]
    command = [sys.executable, "-m", "data_prep", "scenes", *options]
    process = subprocess.Popen(command, cwd=repository, stderr=subprocess.DEVNULL)
    wait_until(lambda: any(folder.glob("train2014/*.png")))
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    wait_until(lambda: not any(is_alive(child) for child in children))
    assert len(children) >= 2
    assert not (folder / "annotations" / "captions_train2014.json").exists()
    assert draw(folder) == 0
    assert contents(folder) == contents(small)


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize(
    "options, message",
    [
        (["--seed", "3"], "--seed: is 3, but {} was made with 0"),
        (["--num-images", "251"], "--num-images: is 251, but {} was made with 250"),
        (["--num-held-out-images", "21"], "--num-held-out-images: is 21, but {} was made with 20"),
        (["--max-count", "4"], "--max-count: is 4, but {} was made with 5"),
        (["--colors", "blue", "red"], "--colors: is red blue, but {} was made with red orange yellow green blue"),
        (["--shapes", "star"], "--shapes: is star, but {} was made with circle square triangle star cross"),
        (["--max-size", "20"], "--max-size: is 20, but {} was made with 23"),
    ],
)
def test_other_settings_are_refused(
    small: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(small)
    assert draw(small, *options) == 2
    assert message.format(small) in capsys.readouterr().err
    assert contents(small) == before


@pytest.mark.parametrize(
    "options, message",
    [
        (["--max-count", "0"], "--max-count: is 0, must be from 1 to 5"),
        (["--max-count", "6", "--min-size", "40"], "--max-count: is 6, must be from 1 to 5"),
        (["--max-count", "9"], "--max-count: is 9, must be from 1 to 5"),
        (
            ["--min-size", "40"],
            "--min-size: is 40, must be at most 18, the largest size at which --max-count 5 shapes",
        ),
        (["--min-size", "61", "--max-count", "1"], "--min-size: is 61, must be at most 60"),
        (["--min-size", "9"], "--min-size: is 9, must be at least 10"),
        (["--max-size", "61"], "--max-size: is 61, must be from 10 to 60"),
        (["--min-size", "15", "--max-size", "12"], "--min-size: is 15, must be at most --max-size, which is 12"),
        (["--colors", "red", "bleu"], "--colors: 'bleu' is unknown (did you mean blue?), must be one of red, orange,"),
        (
            ["--colors", "mauve"],
            "--colors: 'mauve' is unknown, must be one of red, orange, yellow, green, blue, purple",
        ),
        (["--tones", "drak"], "--tones: 'drak' is unknown (did you mean dark?), must be one of dark, grey, light"),
        (["--patterns", "dotted"], "--patterns: 'dotted' is unknown, must be one of plain, shaded, striped, checked"),
        (["--shapes", "stars"], "--shapes: 'stars' is unknown (did you mean star?), must be one of circle, square,"),
        (["--shapes", "star", "star"], "--shapes: star is given twice"),
        (["--num-images", "0"], "--num-images: is 0, must be from 1 to 1000000000"),
        (["--num-held-out-images", "0"], "--num-held-out-images: is 0, must be from 1 to"),
        (["--seed", "-1"], "--seed: is -1, must be at least 0"),
        (["--workers", "0"], "--workers: is 0, must be at least 1"),
        (
            ["--max-count", "1", "--colors", "yellow", "--shapes", "triangle"],
            "--max-count, --colors, --shapes: leave only combinations that are held out",
        ),
    ],
)
def test_bad_options_get_one_line(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw(tmp_path / "set", *options) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}") and captured.err.count("\n") == 1 and not captured.out
    assert not (tmp_path / "set").exists()


def test_folders_of_others_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").write_text("mine")
    for folder, message in (
        (tmp_path, "is not empty; give another folder"),
        (tmp_path / "notes", "is a file; give a folder"),
        (tmp_path / "notes" / "set", "cannot write to"),
        (Path("/proc/set"), "cannot write to"),
    ):
        assert draw(folder) == 2
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_one_command_at_a_time(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with only_writer(small, "--out"):
        assert draw(small) == 2
    assert f"{small}: process {os.getpid()} on " in capsys.readouterr().err


def test_damaged_settings_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in ("{", "[]", '{"seed": 0}'):
        (tmp_path / "scenes.json").write_text(content)
        assert draw(tmp_path) == 2
        assert f"{tmp_path / 'scenes.json'}: is damaged; delete" in capsys.readouterr().err


def test_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(scene_folder, "write_document", full)
    assert draw(tmp_path / "set") == 2
    assert f"error: --out {tmp_path / 'set'}: cannot be written: No space left on device\n" in capsys.readouterr().err


def test_without_a_held_out_combination_there_is_no_unseen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw(tmp_path, "--num-images", "10", "--max-count", "1", "--colors", "red", "--shapes", "circle") == 0
    assert "no split unseen: " in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.glob("*2014")) == ["train2014", "val2014"]
    assert {caption for image in read_coco(tmp_path, "val") for caption in image.prompts} >= {"a red circle"}
