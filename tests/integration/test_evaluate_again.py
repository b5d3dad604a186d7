"""`ifvit evaluate` on what an earlier start left: whole, in part, damaged, or of something else."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.integration.conftest import NUM_IMAGES, Command, results_of


@pytest.fixture
def folder(evaluated: Path, run: Path, tmp_path: Path) -> Path:
    """Of the evaluation, in a copy of the run."""
    return shutil.copytree(run, tmp_path / "tiny") / "evaluation" / evaluated.name


@pytest.fixture
def evaluate_again(folder: Path, clip: Path, ifvit_main: Command) -> Command:
    return partial(ifvit_main, "evaluate", folder.parents[1], "--clip", clip, "--num-images", NUM_IMAGES)


def test_the_same_command_again_does_nothing(folder: Path, evaluate_again: Command) -> None:
    before = (folder / "results.json").read_bytes()
    again = evaluate_again()
    assert "evaluated before, nothing left to do" in again.stderr
    assert again.stdout.splitlines()[-1] == str(folder)
    assert (folder / "results.json").read_bytes() == before


def test_an_interrupted_evaluation_goes_on_to_the_same_numbers(
    evaluated: Path, folder: Path, evaluate_again: Command
) -> None:
    (folder / "results.json").unlink()
    images = folder / "images-unseen.npy"
    content = images.read_bytes()
    images.unlink()
    (folder / "images-unseen.npy.partial").write_bytes(content[: len(content) * 3 // 4])
    kept = (folder / "images-val.npy").stat().st_mtime_ns
    done = evaluate_again()
    assert "sampling: 18/18 images" in done.stderr
    assert images.read_bytes() == content
    assert (folder / "images-val.npy").stat().st_mtime_ns == kept
    ours, theirs = results_of(folder), results_of(evaluated)
    assert ours["splits"] == theirs["splits"]
    first, second = ours["generation"]["starts"]
    assert [first] == theirs["generation"]["starts"] and second["num_images"] == 5
    assert ours["seconds"]["generation"] == pytest.approx(first["seconds"] + second["seconds"])


def test_a_damaged_file_of_images_is_made_again(evaluated: Path, folder: Path, evaluate_again: Command) -> None:
    (folder / "results.json").unlink()
    images = folder / "images-val.npy"
    content = images.read_bytes()
    images.write_bytes(content[:-100])
    evaluate_again()
    assert images.read_bytes() == content
    assert results_of(folder)["splits"] == results_of(evaluated)["splits"]


def test_results_of_an_older_version_are_measured_again_on_the_kept_images(
    evaluated: Path, folder: Path, tmp_path: Path, evaluate_again: Command, ifvit_main: Command
) -> None:
    """Older versions left no record of the images' making and no recipe."""
    for file in ("generation.json", "recipe.yaml"):
        (folder / file).unlink()
    (folder / "results.json").write_text('{"format_version": 1, "run": "tiny"}')
    refused = ifvit_main("compare", folder.parents[1], "--out", tmp_path / "comparison", code=2)
    assert "has format version 1, not 2; evaluate again" in refused.stderr
    kept = (folder / "images-val.npy").stat().st_mtime_ns
    evaluate_again()
    assert (folder / "images-val.npy").stat().st_mtime_ns == kept
    ours = results_of(folder)
    assert ours["splits"] == results_of(evaluated)["splits"]
    assert ours["generation"] == {"starts": []} and ours["seconds"]["generation"] is None
    assert ours["measured_on"]["device"] == "cpu"
    ifvit_main("compare", folder.parents[1], "--out", tmp_path / "comparison")


def test_results_of_something_else_under_the_same_name_are_refused(folder: Path, evaluate_again: Command) -> None:
    file = folder / "results.json"
    others = json.loads(file.read_text())
    others["protocol"]["seed"] = 7
    others["checkpoint"]["weights_sha256"] = "0" * 64
    file.write_text(json.dumps(others))
    refused = evaluate_again(code=2)
    assert (
        "has results of another evaluation (checkpoint.weights_sha256, protocol.seed); move it away" in refused.stderr
    )


def test_an_evaluation_folder_that_cannot_be_used_is_one_line(folder: Path, evaluate_again: Command) -> None:
    shutil.rmtree(folder.parent)
    folder.parent.touch()
    assert "cannot be written (Not a directory)" in evaluate_again(code=2).stderr


def test_a_metric_that_is_new_is_measured_on_the_old_images(
    evaluated: Path, folder: Path, evaluate_again: Command
) -> None:
    older = results_of(folder)
    for image_sets in older["splits"].values():
        for metrics in image_sets.values():
            del metrics["clip_score"]
    (folder / "results.json").write_text(json.dumps(older))
    done = evaluate_again()
    assert "sampling" not in done.stderr
    assert results_of(folder)["splits"] == results_of(evaluated)["splits"]
