"""`make demo` in miniature: the same commands on fewer scenes, for fewer steps, from the shipped model's weights.

From noise it takes minutes to shapes (`make memorise` shows learning from noise), so few steps could show none.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ifvit.commands.trained_model import load_run
from ifvit.data.scene_captions import parse_caption
from ifvit.evaluation.scene_alignment import scene_alignment
from ifvit.evaluation.scene_detector import detect
from ifvit.model.weights import load_model
from ifvit.runtime.run_directory import RunDirectory
from tests.integration.conftest import TIMEOUT_SECONDS

SCENES = "--num-images 96 --num-held-out-images 16 --max-count 3 --colors red green blue yellow --patterns plain"
PROMPTS = [
    "a red square", "a green triangle", "a blue square", "a yellow square", "two blue squares", "two green triangles",
    "three yellow squares", "three green triangles",
]  # fmt: skip
STEPS = 20


def make_demo(repository: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    fields = {
        "train.init_from": repository / "recipes/scenes/trained",
        "train.max_steps": STEPS,
        "optimizer.learning_rate": "1.0e-4",
        "optimizer.warmup_steps": 1,
        "sampling.every_steps": STEPS // 2,
        "checkpoint.every_steps": STEPS,
        "tracking.log_every_steps": 1,
    }
    prompts_file = folder.with_suffix(".txt")
    prompts_file.write_text("\n".join(PROMPTS))
    return subprocess.run(
        [
            "make", "--old-file", ".venv/.installed", "demo", f"DEMO={folder}", f"DEMO_SCENES={SCENES}",
            "DEMO_SET=" + " ".join(f"--set {name}={value}" for name, value in fields.items()), "DEMO_NUM_IMAGES=8",
            f"DEMO_PROMPTS={prompts_file}",
        ],
        cwd=repository,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT_SECONDS,  # several commands
    )  # fmt: skip


@pytest.fixture(scope="module")
def demo(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "my demo"
    made = make_demo(repository, folder)
    assert made.returncode == 0, made.stdout + made.stderr
    assert f"{folder}/samples/grid.png" in made.stdout and f"make ui RUNS={folder}/runs" in made.stdout
    return folder


def pictures(folder: Path) -> NDArray[np.uint8]:
    entries = json.loads((folder / "samples.json").read_text())["images"]
    assert [entry["prompt"] for entry in entries] == PROMPTS
    return np.stack([np.asarray(Image.open(folder / entry["file"])) for entry in entries])


@pytest.mark.parametrize("samples", ["samples", "samples_trained"])
def test_the_pictures_show_what_was_asked_for(samples: str, demo: Path) -> None:
    images = pictures(demo / samples)
    assert images.shape == (len(PROMPTS), 64, 64, 3)
    assert images.std(axis=(1, 2, 3)).min() > 5
    prompts = [parse_caption(prompt) for prompt in PROMPTS]
    found = scene_alignment(detect(images), [prompt for prompt in prompts if prompt is not None])
    assert found["color_accuracy"] >= 0.75 and found["average_match_ratio"] >= 0.5, found


def test_training_goes_on_from_the_shipped_model(demo: Path, repository: Path) -> None:
    records = [json.loads(line) for line in (demo / "runs/demo/metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records]
    assert len(losses) == STEPS and max(losses) < 0.2, losses  # from noise it starts at 1
    trained = load_run(RunDirectory(demo / "runs/demo")).model.state_dict()
    shipped = load_model(repository / "recipes/scenes/trained").state_dict()
    assert all(not torch.equal(trained[name], shipped[name]) for name in shipped)


def test_it_leaves_a_run_a_table_and_an_mlflow_store(demo: Path) -> None:
    run = demo / "runs/demo"
    assert (demo / "runs/mlflow.db").is_file()
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["step-00000010.png", "step-00000020.png"]
    (results_file,) = run.glob("evaluation/*/results.json")
    results = json.loads(results_file.read_text())
    assert results["notice"] == ""  # bundled encoders are trained ones
    assert list(results["splits"]) == ["val", "unseen"]
    assert results["splits"]["val"]["real"]["scene_alignment"]["average_match_ratio"] == 1.0
    assert results["splits"]["val"]["generated"]["scene_alignment"]["num_images"] == 8


def test_a_second_start_reuses_everything(demo: Path, repository: Path) -> None:
    before = pictures(demo / "samples")
    kept = [demo / "runs/demo/metrics.jsonl", demo / "scenes/scenes.json", demo / "shards/train/shard-000000.tar"]
    written = [path.stat().st_mtime_ns for path in kept]
    again = make_demo(repository, demo)
    assert again.returncode == 0, again.stderr
    assert "evaluated before, nothing left to do" in again.stderr
    assert [path.stat().st_mtime_ns for path in kept] == written
    assert np.array_equal(pictures(demo / "samples"), before)


def test_clean_demo_removes_what_the_demo_made_and_nothing_else(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my demo"
    for name in ("scenes", "shards", "runs", "samples", "samples_trained"):
        (folder / name / "inside").mkdir(parents=True)
    (folder / "mine.txt").touch()
    clean = ["make", "clean-demo", f"DEMO={folder}"]
    subprocess.run(clean, cwd=repository, check=True, capture_output=True)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    (folder / "mine.txt").unlink()
    subprocess.run(clean, cwd=repository, check=True, capture_output=True)
    assert not folder.exists()
