"""`ifvit evaluate` and `ifvit compare` on a small run on scenes, through the real commands."""

import json
from pathlib import Path

import numpy as np
import pytest

from ifvit.config.loading import load_recipe
from tests.drawn_coco import draw_coco
from tests.integration.conftest import NUM_IMAGES, Command, results_of


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
