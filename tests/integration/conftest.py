"""Real commands in processes of their own, on a drawn folder and the smallest recipe."""

import contextlib
import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import yaml

from ifvit.commands.main import main
from ifvit.config.loading import merged
from tests.drawn_coco import draw_coco, tiny_values
from tests.fork_server import run_command

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def command(repository: Path) -> Command:
    """`command("ifvit", "train", ...)` runs `python -m ifvit train ...` in the repository, but for the slow imports."""

    def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        completed = run_command([str(argument) for argument in arguments], repository, timeout_seconds=900)
        assert completed.returncode == code, completed.stdout + completed.stderr
        return completed

    return run


@pytest.fixture
def ifvit_main(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`ifvit_main("sample", ...)` runs the command in this process, which has the imports done.

    Not for two trainings: DeepSpeed keeps the first one's process group.
    """

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
