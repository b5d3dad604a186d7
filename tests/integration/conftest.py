"""Real commands in processes of their own, on a drawn folder and the smallest recipe."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ifvit.config.loading import merged
from tests.drawn_coco import draw_coco, tiny_values

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def command(repository: Path) -> Command:
    """`command("ifvit", "train", ...)` runs `python -m ifvit train ...` in the repository."""

    def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        completed = subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=repository,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            text=True,
            capture_output=True,
            timeout=300,
        )
        assert completed.returncode == code, completed.stdout + completed.stderr
        return completed

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
