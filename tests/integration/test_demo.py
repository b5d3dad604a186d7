"""`make demo` in miniature: the same commands on a smaller world, with a smaller model."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCENES = (
    "--num-images 320 --num-held-out-images 20 --max-count 1 --colors red green --shapes square --min-size 20 "
    "--max-size 24 --patterns plain --tones grey"
)
SMALLER = {
    "model.hidden_size": "128",
    "model.num_attention_heads": "4",
    "model.depth": "4",
    "model.fusion.num_image_blocks": "1",
    "train.max_steps": "1000",
    "train.global_batch_size": "16",
    "train.micro_batch_size": "16",
    "optimizer.learning_rate": "2.0e-3",
    "sampling.every_steps": "500",
    "sampling.num_inference_steps": "12",
    "checkpoint.every_steps": "1000",
}
PHRASES = [
    "a {} square", "one {} square", "there is a {} square", "a picture of a {} square", "an image with a {} square",
    "a {} square and nothing else", "a {} square on a grey background", "a {} square on a plain background",
]  # fmt: skip
PROMPTS = [phrase.format(color) for color in ("red", "green") for phrase in PHRASES]


def make_demo(repository: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    fields = {
        "data.coco_root": folder / "scenes",
        "data.shards_root": folder / "shards",
        "runtime.runs_root": folder / "runs",
        **SMALLER,
    }
    prompts_file = folder.with_suffix(".txt")
    prompts_file.write_text("\n".join(PROMPTS))
    return subprocess.run(
        [
            "make", "--old-file", ".venv/.installed", "demo", f"DEMO={folder}", f"DEMO_SCENES={SCENES}",
            "DEMO_SET=" + " ".join(f"--set {name}={value}" for name, value in fields.items()), "DEMO_NUM_IMAGES=20",
            f"DEMO_PROMPTS={prompts_file}",
        ],
        cwd=repository,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def demo(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    made = make_demo(repository, folder)
    assert made.returncode == 0, made.stdout + made.stderr
    assert f"{folder}/samples/grid.png" in made.stdout and f"make ui RUNS={folder}/runs" in made.stdout
    return folder


def pictures(folder: Path) -> tuple[np.ndarray, list[str]]:
    entries = json.loads((folder / "samples/samples.json").read_text())["images"]
    return np.stack([np.asarray(Image.open(folder / "samples" / entry["file"])) for entry in entries]), [
        entry["prompt"] for entry in entries
    ]


def test_it_learns_and_its_pictures_are_not_blank(demo: Path) -> None:
    # So short a training draws few clean shapes: that the detector finds those asked for takes a longer one.
    images, prompts = pictures(demo)
    assert images.shape == (16, 64, 64, 3) and prompts == PROMPTS
    assert images.std(axis=(1, 2, 3)).min() > 5
    records = [json.loads(line) for line in (demo / "runs/demo/metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


def test_it_leaves_a_run_a_table_and_an_mlflow_store(demo: Path) -> None:
    run = demo / "runs/demo"
    assert (demo / "runs/mlflow.db").is_file()
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["step-00000500.png", "step-00001000.png"]
    (results_file,) = run.glob("evaluation/*/results.json")
    results = json.loads(results_file.read_text())
    assert results["notice"] == ""  # bundled encoders are trained ones
    assert list(results["splits"]) == ["val"]  # this little world has no held-out combination
    assert results["splits"]["val"]["real"]["scene_alignment"]["average_match_ratio"] == 1.0
    assert results["splits"]["val"]["generated"]["scene_alignment"]["num_images"] == 20


def test_a_second_start_reuses_everything(demo: Path, repository: Path) -> None:
    before, _ = pictures(demo)
    started = (demo / "runs/demo/metrics.jsonl").read_bytes()
    again = make_demo(repository, demo)
    assert again.returncode == 0, again.stderr
    assert "were there already" in again.stdout
    assert (demo / "runs/demo/metrics.jsonl").read_bytes() == started
    assert np.array_equal(pictures(demo)[0], before)


def test_clean_demo_removes_it(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(repository / "recipes", folder)
    subprocess.run(["make", "clean-demo", f"DEMO={folder}"], cwd=repository, check=True, capture_output=True)
    assert not folder.exists()
