"""The main job through its real commands: train, be killed, go on, sample."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from ifvit.checkpoint.load import newest_checkpoint
from ifvit.encoders.random_weights import random_autoencoder_folder
from ifvit.sampling.grid import labelled_grid
from tests.distributed.training_runs import curve as curve_of
from tests.integration.conftest import Command


def curve(run: Path) -> list[dict[str, Any]]:
    """The logged steps, without what depends on the clock and the machine."""
    return curve_of(run.parent, run.name)


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = newest_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    return checkpoint.read_all("weights")


def pixels(folder: Path) -> list[np.ndarray]:
    files = json.loads((folder / "samples.json").read_text())["images"]
    return [np.asarray(Image.open(folder / entry["file"])).astype(int) for entry in files]


@pytest.fixture(scope="module")
def finished_run(tiny_recipe_file: Path, tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """Twelve steps on one process, never disturbed."""
    runs_root = tmp_path_factory.mktemp("runs")
    command("ifvit", "train", tiny_recipe_file, "--set", f"runtime.runs_root={runs_root}")
    return runs_root / "tiny"


def test_a_run_is_a_directory_that_explains_itself(finished_run: Path) -> None:
    names = {entry.name for entry in finished_run.iterdir()}
    assert names >= {"recipe.yaml", "environment.json", "metrics.jsonl", "checkpoints", "samples", "logs", "lock"}
    assert sorted(path.name for path in (finished_run / "checkpoints").iterdir()) == [
        f"step-{step:08d}" for step in (4, 8, 12)
    ]
    assert sorted(path.name for path in (finished_run / "samples").iterdir()) == [
        f"step-{step:08d}.png" for step in (6, 12)
    ]
    assert [record["step"] for record in curve(finished_run)] == list(range(1, 13))
    (attempt,) = json.loads((finished_run / "environment.json").read_text())["attempts"]
    assert attempt["attention_backend"] == attempt["attention"]["backend"] == "sdpa"
    assert attempt["attention"]["reason"] == "the first that is right"
    assert "Random weights in the autoencoder and the text encoder" in attempt["encoders_notice"]


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM], ids=lambda sent: sent.name)
def test_an_interrupted_run_goes_on_to_the_undisturbed_result(
    sent: signal.Signals,
    finished_run: Path,
    tiny_recipe_file: Path,
    tmp_path: Path,
    repository: Path,
    command: Command,
) -> None:
    # A slow grid at step 6 leaves time to stop the run in its middle; it changes no step.
    fields = [f"runtime.runs_root={tmp_path}", "sampling.num_inference_steps=400", "checkpoint.asynchronous=false"]
    arguments = ["ifvit", "train", str(tiny_recipe_file), *(part for field in fields for part in ("--set", field))]
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=repository, env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    run = tmp_path / "tiny"
    deadline = time.monotonic() + 240
    try:
        while not (run / "checkpoints/step-00000004/manifest.json").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(sent)
        assert process.wait(240) == (75 if sent == signal.SIGTERM else -sent)
    finally:
        process.kill()
    reached = newest_checkpoint(run / "checkpoints")
    assert reached is not None and reached.manifest.step < 12, "stopped too late to show anything"
    if sent == signal.SIGTERM:
        assert reached.manifest.step == curve(run)[-1]["step"]  # saved where it was
    resumed = command(*arguments)
    assert f"resumed at step {reached.manifest.step}" in resumed.stderr
    assert curve(run) == curve(finished_run)
    ours, theirs = weights(run), weights(finished_run)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_two_ranks_under_torchrun_give_the_same_curve(
    finished_run: Path, tiny_recipe_file: Path, tmp_path: Path, command: Command
) -> None:
    command(
        "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "ifvit", "train", tiny_recipe_file,
        "--set", f"runtime.runs_root={tmp_path}",
    )  # fmt: skip
    for ours, theirs in zip(curve(tmp_path / "tiny"), curve(finished_run), strict=True):
        # The difference of two nearly equal weights has fewer digits than they have.
        assert ours.pop("update_norm") == pytest.approx(theirs.pop("update_norm"), rel=1e-3)
        assert ours == pytest.approx(theirs, rel=1e-5)
    ours_grid, theirs_grid = (
        np.asarray(Image.open(run / "samples/step-00000012.png")).astype(int)
        for run in (tmp_path / "tiny", finished_run)
    )
    assert np.abs(ours_grid - theirs_grid).max() <= 2  # two ranks share the prompts


def test_more_steps_are_asked_for_with_the_same_command(
    finished_run: Path, tiny_recipe_file: Path, command: Command, ifvit_main: Command
) -> None:
    sets = ["--set", f"runtime.runs_root={finished_run.parent}"]
    again = command("ifvit", "train", tiny_recipe_file, *sets)
    assert "at step 12 of 12, nothing left to do" in again.stdout
    refused = ifvit_main("train", tiny_recipe_file, *sets, "--set", "seed=5", code=2)
    assert "seed is 1234 there and 5 here" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_grid_shows_the_averaged_weights(finished_run: Path, tmp_path: Path, ifvit_main: Command) -> None:
    """The last grid is what `ifvit sample` makes of the last checkpoint's average, at the run's seed."""
    prompts, out = ["A red bus.", "Two cats."], tmp_path / "out"
    arguments = [part for prompt in prompts for part in ("--prompt", prompt)]
    ifvit_main("sample", finished_run, *arguments, "--seed", 1234, "--out", out)
    notice = json.loads((out / "samples.json").read_text())["encoders_notice"]
    images = np.stack(pixels(out)).astype(np.uint8)
    expected = labelled_grid(images, prompts, f"tiny, step 12, guidance scale 4, EMA 0.9. {notice}")
    grid = np.asarray(Image.open(finished_run / "samples/step-00000012.png")).astype(int)
    assert np.abs(grid - np.asarray(expected)).max() <= 1


@pytest.fixture(scope="module")
def samples(finished_run: Path, tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    out = tmp_path_factory.mktemp("samples")
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    prompts.write_text("A red bus.\n\nTwo cats.\nA dog on a road.\n")
    command(
        "ifvit", "sample", finished_run, "--prompts-file", prompts, "--guidance-scale", 4, "--num-inference-steps", 10,
        "--seed", 3, "--out", out,
    )  # fmt: skip
    return out


def test_samples_are_pngs_a_grid_and_their_protocol(samples: Path) -> None:
    protocol = json.loads((samples / "samples.json").read_text())
    assert (protocol["guidance_scale"], protocol["omega"], protocol["num_inference_steps"]) == (4.0, 3.0, 10)
    assert protocol["solver"] == "dpmsolver++_singlestep_3"
    assert [entry["prompt"] for entry in protocol["images"]] == ["A red bus.", "Two cats.", "A dog on a road."]
    assert [image.shape for image in pixels(samples)] == [(32, 32, 3)] * 3
    assert (samples / "grid.png").is_file()
    assert "Random weights" in protocol["encoders_notice"]


def test_encoders_may_move_and_must_not_change(
    finished_run: Path, tiny_recipe_file: Path, tmp_path: Path, command: Command, ifvit_main: Command
) -> None:
    shutil.copytree(random_autoencoder_folder(), tmp_path / "moved")
    arguments = ["sample", finished_run, "--prompt", "a", "--num-inference-steps", 3, "--out", tmp_path / "out"]
    ifvit_main(*arguments, "--set", f"encoders.autoencoder={tmp_path / 'moved'}")
    sets = ["--set", f"runtime.runs_root={finished_run.parent}", "--set", f"encoders.autoencoder={tmp_path / 'moved'}"]
    assert "nothing left to do" in command("ifvit", "train", tiny_recipe_file, *sets).stdout
    other = AutoencoderKL.from_pretrained(tmp_path / "moved")
    other.decoder.conv_out.bias.data += 1
    other.save_pretrained(tmp_path / "other")
    refused = ifvit_main(*arguments, "--set", f"encoders.autoencoder={tmp_path / 'other'}", code=2)
    assert "encoders.autoencoder: " in refused.stderr and "has other content" in refused.stderr
    assert (tmp_path / "out/grid.png").is_file()  # what was there before stays


def test_samples_replace_earlier_ones_and_nothing_else(finished_run: Path, tmp_path: Path, ifvit_main: Command) -> None:
    def sample(prompt: str, code: int = 0) -> list[str]:
        arguments = ["--prompt", prompt, "--num-inference-steps", 3, "--out", tmp_path / "out"]
        ifvit_main("sample", finished_run, *arguments, code=code)
        return sorted(path.name for path in (tmp_path / "out").iterdir())

    assert sample("one") == ["00000-one.png", "grid.png", "samples.json"]
    assert sample("two") == ["00000-two.png", "grid.png", "samples.json"]
    (tmp_path / "out/notes.txt").write_text("mine")
    assert sample("three", code=2) == ["00000-two.png", "grid.png", "notes.txt", "samples.json"]


def test_an_image_does_not_depend_on_its_batch(
    finished_run: Path, samples: Path, tmp_path: Path, ifvit_main: Command
) -> None:
    ifvit_main(
        "sample", finished_run, "--prompt", "Two cats.", "--guidance-scale", 4, "--num-inference-steps", 10,
        "--seed", 3, "--out", tmp_path,
    )  # fmt: skip
    assert np.abs(pixels(tmp_path)[0] - pixels(samples)[1]).max() <= 1


def test_token_ids_train_like_stored_embeddings(
    finished_run: Path, tiny_recipe_file: Path, tmp_path: Path, command: Command
) -> None:
    """The text encoder online gives the loss of its stored output, up to float16."""
    sets = [f"data.shards_root={tmp_path / 'shards'}", "data.text_storage=token_ids"]
    arguments = [part for each in sets for part in ("--set", each)]
    command("data_prep", "shards", tiny_recipe_file, *arguments)
    command("ifvit", "train", tiny_recipe_file, *arguments, "--set", f"runtime.runs_root={tmp_path}")
    for ours, theirs in zip(curve(tmp_path / "tiny"), curve(finished_run), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


def test_mlflow_follows_one_run_through_a_restart(
    tiny_recipe_file: Path, tmp_path: Path, repository: Path, command: Command, fresh_command: Command
) -> None:
    from mlflow.tracking import MlflowClient

    sets = ["--set", f"runtime.runs_root={tmp_path}", "--set", "tracking.mlflow=true"]
    for start, last_step in ((command, 5), (fresh_command, 12)):
        done = start("ifvit", "train", tiny_recipe_file, *sets, "--set", f"train.max_steps={last_step}")
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr  # at its end neither
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'ifvit'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "tiny"
    assert run.info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")]
    assert sorted(steps) == list(range(1, 13))
    assert run.data.params["model.conditioning"] == "cross_attention"
    assert run.data.tags["attempt"] == "2"
    assert {"learning_rate", "grad_norm", "samples_per_second", "model_tflops_per_second"} <= run.data.metrics.keys()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True)
    assert run.data.tags["git_commit"] == head.stdout.strip()
    artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"recipe.yaml", "environment.json", "images"} <= artifacts


def test_a_loss_that_is_no_number_stops_the_run_and_is_not_saved(
    tiny_recipe_file: Path, tmp_path: Path, command: Command
) -> None:
    sets = [f"runtime.runs_root={tmp_path}", "optimizer.learning_rate=1.0e+30", "checkpoint.every_steps=1"]
    arguments = [part for each in sets for part in ("--set", each)]
    stopped = command("ifvit", "train", tiny_recipe_file, *arguments, code=3)
    assert "not finite" in stopped.stderr or "the loss is" in stopped.stderr
    saved = newest_checkpoint(tmp_path / "tiny/checkpoints")
    assert saved is not None and saved.manifest.step < 12
    assert all(tensor.isfinite().all() for kind in saved.manifest.kinds for tensor in saved.read_all(kind).values())
