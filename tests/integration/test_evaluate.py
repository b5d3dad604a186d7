"""`ifvit evaluate` and `ifvit compare` on a small run on scenes, through the real commands."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from data_prep.main import main as data_prep
from ifvit.config.loading import load_recipe, merged
from tests.drawn_coco import draw_coco, tiny_values
from tests.integration.conftest import Command
from tests.tiny_clip import save_tiny_clip

NUM_IMAGES = 9


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """Two steps on 24 scenes, 64 px, checkpoints of steps 1 and 2."""
    root = tmp_path_factory.mktemp("scenes")
    scenes = ["--out", str(root / "coco"), "--num-images", "24", "--num-held-out-images", "10", "--seed", "0"]
    assert data_prep(["scenes", *scenes]) == 0
    values = merged(
        tiny_values(root / "coco", root / "shards"),
        {
            "model": {"sample_size": 8},
            "train": {"max_steps": 2},
            "ema": {"decays": [0.9, 0.5]},
            "checkpoint": {"every_steps": 1},
            "sampling": {"num_inference_steps": 3, "guidance_scale": 2.0, "batch_size": 4},
            "tracking": {"mlflow": False, "log_every_steps": 1},
            "runtime": {"runs_root": str(root / "runs")},
        },
    )
    (root / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert data_prep(["shards", str(root / "recipe.yaml")]) == 0
    command("ifvit", "train", root / "recipe.yaml")
    return root / "runs/tiny"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def evaluated(run: Path, clip: Path, command: Command) -> Path:
    """The folder of an evaluation of the run's last step."""
    done = command("ifvit", "evaluate", run, "--clip", clip, "--num-images", NUM_IMAGES)
    assert "Traceback" not in done.stderr
    return Path(done.stdout.splitlines()[-1])


def results_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return content


def test_a_folder_explains_its_numbers(evaluated: Path, run: Path, clip: Path) -> None:
    assert evaluated.parent == run / "evaluation"
    assert evaluated.name.startswith("step-00000002-")
    assert sorted(path.name for path in evaluated.iterdir()) == [
        "generation.json", "grid.png", "images-unseen.npy", "images-val.npy", "recipe.yaml", "results.json",
    ]  # fmt: skip
    results = results_of(evaluated)
    protocol = results["protocol"]
    assert (protocol["guidance_scale"], protocol["omega"], protocol["seed"]) == (2.0, 1.0, 0)
    assert (protocol["solver"], protocol["num_inference_steps"]) == ("dpmsolver++_singlestep_3", 3)
    assert {split: values["num_images"] for split, values in protocol["splits"].items()} == {"val": 9, "unseen": 9}
    assert (results["run"], results["checkpoint"]["step"], results["checkpoint"]["ema_decay"]) == ("tiny", 2, 0.9)
    assert results["encoders"]["clip"]["name"] == str(clip)
    assert "Random weights in the autoencoder and the text encoder" in results["notice"]
    (start,) = results["generation"]["starts"]
    for machine in (start, results["measured_on"]):
        assert machine["device"] == "cpu" and machine["packages"]["torch"]
    assert start["num_images"] == 2 * NUM_IMAGES
    assert results["seconds"]["generation"] == start["seconds"] > 0 and results["seconds"]["measuring"] > 0
    assert load_recipe(evaluated / "recipe.yaml").model == load_recipe(run / "recipe.yaml").model


def test_every_number_stands_beside_its_ceilings(evaluated: Path) -> None:
    for image_sets in results_of(evaluated)["splits"].values():
        assert image_sets.keys() == {"generated", "reconstructions", "real"}
        real, generated = image_sets["real"], image_sets["generated"]
        assert real["frechet_distance"]["distance"] == pytest.approx(0, abs=1e-6)
        assert generated["frechet_distance"]["distance"] > 1e-3
        assert -1 <= generated["clip_score"]["cosine"] <= 1
        assert real["scene_alignment"]["average_match_ratio"] == 1.0  # the detector reads the drawn scenes
        assert generated["scene_alignment"]["average_match_ratio"] == 0.0  # and sees nothing in noise
        assert generated["scene_alignment"]["average_error"] > 0


def test_the_same_command_again_does_nothing(evaluated: Path, run: Path, clip: Path, ifvit_main: Command) -> None:
    before = (evaluated / "results.json").read_bytes()
    again = ifvit_main("evaluate", run, "--clip", clip, "--num-images", NUM_IMAGES)
    assert "evaluated before, nothing left to do" in again.stderr
    assert again.stdout.splitlines()[-1] == str(evaluated)
    assert (evaluated / "results.json").read_bytes() == before


def test_an_interrupted_evaluation_goes_on_to_the_same_numbers(
    evaluated: Path, run: Path, clip: Path, tmp_path: Path, ifvit_main: Command
) -> None:
    copy = shutil.copytree(run, tmp_path / "tiny")
    folder = copy / "evaluation" / evaluated.name
    (folder / "results.json").unlink()
    images = folder / "images-unseen.npy"
    content = images.read_bytes()
    images.unlink()
    (folder / "images-unseen.npy.partial").write_bytes(content[: len(content) * 3 // 4])
    kept = (folder / "images-val.npy").stat().st_mtime_ns
    done = ifvit_main("evaluate", copy, "--clip", clip, "--num-images", NUM_IMAGES)
    assert "sampling: 18/18 image" in done.stderr
    assert images.read_bytes() == content
    assert (folder / "images-val.npy").stat().st_mtime_ns == kept
    ours, theirs = results_of(folder), results_of(evaluated)
    assert ours["splits"] == theirs["splits"]
    first, second = ours["generation"]["starts"]
    assert [first] == theirs["generation"]["starts"] and second["num_images"] == 5
    assert ours["seconds"]["generation"] == pytest.approx(first["seconds"] + second["seconds"])


def test_a_damaged_file_of_images_is_made_again(
    evaluated: Path, run: Path, clip: Path, tmp_path: Path, ifvit_main: Command
) -> None:
    copy = shutil.copytree(run, tmp_path / "tiny")
    folder = copy / "evaluation" / evaluated.name
    (folder / "results.json").unlink()
    images = folder / "images-val.npy"
    content = images.read_bytes()
    images.write_bytes(content[:-100])
    ifvit_main("evaluate", copy, "--clip", clip, "--num-images", NUM_IMAGES)
    assert images.read_bytes() == content
    assert results_of(folder)["splits"] == results_of(evaluated)["splits"]


def test_results_of_an_older_version_are_measured_again_on_the_kept_images(
    evaluated: Path, run: Path, clip: Path, tmp_path: Path, ifvit_main: Command
) -> None:
    """Older versions left no record of the images' making and no recipe."""
    copy = shutil.copytree(run, tmp_path / "tiny")
    folder = copy / "evaluation" / evaluated.name
    for file in ("generation.json", "recipe.yaml"):
        (folder / file).unlink()
    (folder / "results.json").write_text('{"format_version": 1, "run": "tiny"}')
    refused = ifvit_main("compare", copy, "--out", tmp_path / "comparison", code=2)
    assert "has format version 1, not 2; evaluate again" in refused.stderr
    kept = (folder / "images-val.npy").stat().st_mtime_ns
    ifvit_main("evaluate", copy, "--clip", clip, "--num-images", NUM_IMAGES)
    assert (folder / "images-val.npy").stat().st_mtime_ns == kept
    ours = results_of(folder)
    assert ours["splits"] == results_of(evaluated)["splits"]
    assert ours["generation"] == {"starts": []} and ours["seconds"]["generation"] is None
    assert ours["measured_on"]["device"] == "cpu"
    ifvit_main("compare", copy, "--out", tmp_path / "comparison")


def test_results_of_something_else_under_the_same_name_are_refused(
    evaluated: Path, run: Path, clip: Path, tmp_path: Path, ifvit_main: Command
) -> None:
    copy = shutil.copytree(run, tmp_path / "tiny")
    file = copy / "evaluation" / evaluated.name / "results.json"
    others = json.loads(file.read_text())
    others["protocol"]["seed"] = 7
    others["checkpoint"]["weights_sha256"] = "0" * 64
    file.write_text(json.dumps(others))
    refused = ifvit_main("evaluate", copy, "--clip", clip, "--num-images", NUM_IMAGES, code=2)
    assert (
        "has results of another evaluation (checkpoint.weights_sha256, protocol.seed); move it away" in refused.stderr
    )


def test_an_evaluation_folder_that_cannot_be_used_is_one_line(
    run: Path, clip: Path, tmp_path: Path, ifvit_main: Command
) -> None:
    copy = shutil.copytree(run, tmp_path / "tiny", ignore=shutil.ignore_patterns("evaluation"))
    (copy / "evaluation").touch()
    refused = ifvit_main("evaluate", copy, "--clip", clip, "--num-images", NUM_IMAGES, code=2)
    assert "cannot be written (Not a directory)" in refused.stderr


def test_a_split_of_one_image_is_refused_before_anything_is_made(
    run: Path, clip: Path, tmp_path: Path, ifvit_main: Command
) -> None:
    coco = draw_coco(tmp_path / "coco", "val", num_images=1)
    refused = ifvit_main("evaluate", run, "--clip", clip, "--coco-root", coco, code=2)
    assert f"--splits: split val of {coco} has 1 image, a distance needs at least 2" in refused.stderr
    assert "sampling" not in refused.stderr


def test_json_is_all_that_stdout_has(
    evaluated: Path, run: Path, clip: Path, tmp_path: Path, ifvit_main: Command
) -> None:
    done = ifvit_main("evaluate", run, "--clip", clip, "--num-images", NUM_IMAGES, "--json")
    assert json.loads(done.stdout) == results_of(evaluated)
    assert done.stderr.splitlines()[-1] == str(evaluated)
    done = ifvit_main("compare", evaluated, "--out", tmp_path, "--json")
    assert json.loads(done.stdout) == json.loads((tmp_path / "comparison.json").read_text())


def test_a_metric_that_is_new_is_measured_on_the_old_images(
    evaluated: Path, run: Path, clip: Path, tmp_path: Path, ifvit_main: Command
) -> None:
    copy = shutil.copytree(run, tmp_path / "tiny")
    folder = copy / "evaluation" / evaluated.name
    older = results_of(folder)
    for image_sets in older["splits"].values():
        for metrics in image_sets.values():
            del metrics["clip_score"]
    (folder / "results.json").write_text(json.dumps(older))
    done = ifvit_main("evaluate", copy, "--clip", clip, "--num-images", NUM_IMAGES)
    assert "sampling" not in done.stderr
    assert results_of(folder)["splits"] == results_of(evaluated)["splits"]


@pytest.mark.parametrize(
    "options",
    [
        ["--step", "1"],
        ["--ema-decay", "0.5"],
        ["--seed", "1"],
        ["--guidance-scale", "1"],
        ["--set", "diffusion.beta_end=0.1"],
    ],
    ids=lambda o: o[0],
)
def test_another_checkpoint_or_protocol_is_another_folder(
    options: list[str], run: Path, clip: Path, ifvit_main: Command
) -> None:
    def images(*more: str) -> np.ndarray:
        done = ifvit_main("evaluate", run, "--clip", clip, "--num-images", NUM_IMAGES, "--splits", "val", *more)
        return np.load(Path(done.stdout.splitlines()[-1]) / "images-val.npy")

    assert not np.array_equal(images(), images(*options))


def test_an_export_has_the_numbers_of_its_run(
    evaluated: Path, run: Path, clip: Path, tmp_path: Path, ifvit_main: Command
) -> None:
    export = tmp_path / "export"
    ifvit_main("export", run, "--out", export)
    done = ifvit_main("evaluate", export, "--clip", clip, "--num-images", NUM_IMAGES)
    folder = Path(done.stdout.splitlines()[-1])
    assert folder.parent == export / "evaluation" and folder.name.startswith("weights-")
    ours, theirs = results_of(folder), results_of(evaluated)
    assert ours["splits"] == theirs["splits"] and ours["protocol"] == theirs["protocol"]
    assert ours["checkpoint"]["weights_sha256"] == theirs["checkpoint"]["weights_sha256"]
    compared = ifvit_main("compare", export, evaluated, "--out", tmp_path / "comparison").stdout
    assert [line.partition(")")[0] for line in compared.splitlines()[1:3]] == ["tiny (export", "tiny (step 2, EMA 0.9"]


def test_weights_without_a_recipe_take_one(run: Path, clip: Path, tmp_path: Path, ifvit_main: Command) -> None:
    export = tmp_path / "export"
    ifvit_main("export", run, "--out", export)
    for file in ("recipe.yaml", "environment.json"):
        (export / file).unlink()
    arguments = ["--clip", clip, "--num-images", NUM_IMAGES, "--splits", "val", "--set", "encoders.scaling_factor=1"]
    refused = ifvit_main("evaluate", export, *arguments, code=2)
    assert "has no recipe.yaml; give encoders and sampling with --recipe RECIPE" in refused.stderr
    done = ifvit_main("evaluate", export, *arguments, "--recipe", run.parents[1] / "recipe.yaml")
    assert results_of(Path(done.stdout.splitlines()[-1]))["checkpoint"]["step"] is None
    compared = ifvit_main("compare", export, "--out", tmp_path / "comparison").stdout
    assert compared.splitlines()[1].split()[:3] == ["tiny", "cross_attention", "early"]


def test_captions_that_are_no_scenes_are_not_counted(
    run: Path, clip: Path, tmp_path: Path, ifvit_main: Command
) -> None:
    coco = draw_coco(tmp_path / "coco", "val", num_images=3)
    done = ifvit_main("evaluate", run, "--clip", clip, "--coco-root", coco)
    assert "not every caption is of a scene, so nothing was counted" in done.stdout
    assert "3 images do not determine a covariance of width 6" in done.stdout
    assert "match ratio" not in done.stdout


def test_compare_reads_what_evaluate_wrote(evaluated: Path, run: Path, tmp_path: Path, ifvit_main: Command) -> None:
    out = tmp_path / "out"
    done = ifvit_main("compare", evaluated, "--out", out)
    assert "match ratio" in done.stdout and "real images" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["comparison.json", "comparison.png", "table.md"]
    record = json.loads((out / "comparison.json").read_text())
    generated = results_of(evaluated)["splits"]["unseen"]["generated"]
    key = "unseen.frechet_distance.distance"
    assert record["runs"][0]["numbers"][key] == generated["frechet_distance"]["distance"]
    assert record["runs"][0]["numbers"]["steps_per_second"] > 0
    assert "| tiny | cross_attention | early |" in (out / "table.md").read_text()


@pytest.mark.parametrize(
    "options, message",
    [
        ([], "encoders.text_encoder: 'random-clip-small' is a text encoder alone"),
        (["--clip", "/nowhere"], "--clip: '/nowhere' is no local folder"),
        (["--num-images", "1"], "--num-images: is 1, must be at least 2"),
        (["--num-images", "11"], "--num-images: is 11, split val of"),
        (["--splits", "val", "val"], "--splits: val val names a split twice"),
        (["--splits", "test"], "captions_test2014.json is missing"),
        (["--coco-root", "/nowhere"], "--splits: /nowhere has neither val nor unseen"),
        (["--step", "7"], "no checkpoint of step 7, only of 1, 2"),
        (["--ema-decay", "0.7"], "--ema-decay: is 0.7, the run has 0.9, 0.5"),
        (["--num-inference-steps", "2"], "sampling.num_inference_steps: is 2, must be at least 3"),
        (["--set", "sampling.solvr=3"], "sampling.solvr: unknown field, did you mean solver?"),
    ],
)
def test_bad_input_is_one_line(options: list[str], message: str, run: Path, ifvit_main: Command) -> None:
    refused = ifvit_main("evaluate", run, *options, code=2)
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert message in line and "Traceback" not in refused.stderr


def test_compare_refuses_in_one_line(evaluated: Path, tmp_path: Path, ifvit_main: Command) -> None:
    (tmp_path / "file").touch()
    refused = ifvit_main("compare", evaluated, "--out", tmp_path / "file", code=2)
    assert refused.stderr.startswith(f"error: --out {tmp_path / 'file'}: cannot be written")
    refused = ifvit_main("compare", tmp_path, code=2)
    assert "is a folder but no run" in refused.stderr
