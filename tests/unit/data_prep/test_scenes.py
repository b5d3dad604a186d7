"""data_prep/scenes.py: what the command writes, keeps and refuses."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from data_prep import scene_folder
from data_prep.folder_lock import only_writer
from data_prep.main import main
from ifvit.data.coco import read_coco

SPLITS = ("train", "val", "unseen")


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


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


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


def test_one_command_at_a_time(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (small, tmp_path / "new"):  # begun, and held by a start that has not yet written anything
        with only_writer(folder, "--out"):
            assert draw(folder) == 2
        assert f"{folder}: process {os.getpid()} on " in capsys.readouterr().err


def test_a_start_killed_before_it_noted_its_settings_is_completed(small: Path, tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("process 17 on host")
    (tmp_path / ".scenes.json.tmp17").write_text("{")
    assert draw(tmp_path) == 0
    assert contents(tmp_path) == contents(small)


@pytest.mark.parametrize("version", [None, 0])
def test_scenes_of_another_version_are_not_completed(
    small: Path, version: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = small / "scenes.json"
    text = file.read_text()
    settings = json.loads(text)
    del settings["format_version"]
    file.write_text(json.dumps(settings if version is None else {"format_version": version, **settings}))
    before = contents(small)
    try:
        assert draw(small) == 2
        assert contents(small) == before
    finally:
        file.write_text(text)
    assert capsys.readouterr().err == (
        f"error: format_version of the scenes: is 1, but {small} was made with {'none' if version is None else 0}; "
        "delete it or use another --out\n"
    )


def test_other_scenes_have_another_version(small: Path) -> None:
    """Where this fails: undo the change, or raise FORMAT_VERSION, so that no begun folder gets scenes of two kinds."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for image in read_coco(small, split)[:20]:
            with Image.open(image.path) as opened:
                digest.update(opened.tobytes())
            digest.update(json.dumps(image.prompts).encode())
        for kind in ("captions", "instances"):
            content = document(small, kind, split)
            digest.update(json.dumps([content["images"][:20], content["annotations"][:20]]).encode())
    assert {scene_folder.FORMAT_VERSION: digest.hexdigest()} == {
        1: "6a30d6c4068c6829f6665573ec9303ff24200b49a1d8f7ec7b4b6844b8018052"
    }


def test_damaged_settings_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in ("{", "[]"):
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
