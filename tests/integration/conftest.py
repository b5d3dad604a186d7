"""Real commands in processes of their own, on a drawn folder and the smallest recipe."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from data_prep.main import main as data_prep
from ifvit.commands.main import main
from ifvit.config.loading import merged
from tests.drawn_coco import draw_coco, tiny_values
from tests.fork_server import run_command
from tests.tiny_clip import save_tiny_clip

Command = Callable[..., subprocess.CompletedProcess[str]]
TIMEOUT_SECONDS = 420  # far more than any command takes on a busy machine
NUM_IMAGES = 9  # of each split that is evaluated


@pytest.fixture(scope="session")
def command(repository: Path) -> Command:
    """`command("ifvit", "train", ...)` runs `python -m ifvit train ...` in the repository, but for the slow imports."""

    def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        completed = run_command([str(argument) for argument in arguments], repository, TIMEOUT_SECONDS)
        assert completed.returncode == code, completed.stdout + completed.stderr
        return completed

    return run


@pytest.fixture(scope="session")
def fresh_command(repository: Path) -> Command:
    """As `command`, in a new interpreter: for what a forked process does not show."""

    def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        completed = subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=repository,
            text=True,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
        )
        assert completed.returncode == code, completed.stdout + completed.stderr
        return completed

    return run


@pytest.fixture
def ifvit_main(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`ifvit_main("sample", ...)` runs the command in this process, which has the imports done.

    Not for trainings, which take `command`: DeepSpeed keeps the first one's process group. This process's allocator
    stays as it is: other tests measure memory.
    """
    monkeypatch.setattr("ifvit.runtime.host_memory.keep_freed_memory", lambda: True)

    def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(repository)
        texts = [str(argument) for argument in arguments]
        out, err = io.StringIO(), io.StringIO()
        # The process group leaves its address in the environment.
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.dict(os.environ):
            returned = main(texts)
        assert returned == code, out.getvalue() + err.getvalue()
        return subprocess.CompletedProcess(texts, returned, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def tiny_recipe_file(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """A recipe of one small run, whose shards are made."""
    root = tmp_path_factory.mktemp("tiny")
    values = merged(
        tiny_values(draw_coco(root / "coco"), root / "shards"),
        {
            "train": {"max_steps": 12, "micro_batch_size": 2},
            "optimizer": {"learning_rate": 1e-3, "warmup_steps": 2},
            "ema": {"decays": [0.9]},
            "checkpoint": {"every_steps": 4},
            "sampling": {"prompts": ["A red bus.", "Two cats."], "every_steps": 6, "num_inference_steps": 4},
            "tracking": {"log_every_steps": 1, "mlflow": False},
        },
    )
    recipe = root / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(values))
    command("data_prep", "shards", recipe)
    return recipe


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def evaluated(run: Path, clip: Path, command: Command) -> Path:
    """The folder of an evaluation of the run's last step."""
    done = command("ifvit", "evaluate", run, "--clip", clip, "--num-images", NUM_IMAGES)
    assert "Traceback" not in done.stderr
    return Path(done.stdout.splitlines()[-1])


def results_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return content
