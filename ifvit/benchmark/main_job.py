"""The main job on this machine's own device, small, through its real commands from scenes to samples."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

STEPS = 8


def check_main_job() -> dict[str, Any]:
    """Losses of a small bf16 run with grids, in one go and in two parts; `failure` says what went wrong, or None."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            whole, parts = train_twice(Path(folder))
        except subprocess.CalledProcessError as error:
            return {"failure": f"{' '.join(error.cmd[2:])}: {error.stderr[-2000:]}"}
    failure = None if whole == parts else "the run in two parts has other losses than the one in one go"
    return {"failure": failure, "resumes_bit_for_bit": whole == parts, "losses": whole}


def train_twice(folder: Path) -> tuple[list[float], list[float]]:
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(small_recipe(folder)))
    call("data_prep", "scenes", "--out", folder / "scenes", "--num-images", 16, "--num-held-out-images", 1)
    call("data_prep", "shards", recipe)
    call("ifvit", "train", recipe)
    call("ifvit", "train", recipe, "--set", "name=parts", "--set", f"train.max_steps={STEPS // 2}")
    call("ifvit", "train", recipe, "--set", "name=parts")
    call("ifvit", "sample", folder / "runs/parts", "--prompt", "a red circle", "--out", folder / "samples")
    return losses(folder / "runs/whole"), losses(folder / "runs/parts")


def small_recipe(folder: Path) -> dict[str, Any]:
    return {
        "name": "whole",
        "data": {
            "coco_root": str(folder / "scenes"),
            "shards_root": str(folder / "shards"),
            "text_storage": "token_ids",  # the text encoder runs in training, too
        },
        "encoders": {"autoencoder": "random-autoencoder-small", "text_encoder": "random-clip-small"},
        "model": {
            "sample_size": 8,
            "hidden_size": 64,
            "num_attention_heads": 2,
            "depth": 4,
            "fusion": {"schedule": "intermediate", "num_image_blocks": 1, "num_text_blocks": 1},
            "text_hidden_size": 64,
        },
        "train": {"max_steps": STEPS, "global_batch_size": 16, "micro_batch_size": 8, "precision": "bf16"},
        "optimizer": {"learning_rate": 1e-3, "warmup_steps": 2},
        "checkpoint": {"every_steps": STEPS},
        "sampling": {"prompts": ["a red circle"], "every_steps": STEPS, "num_inference_steps": 5},
        "tracking": {"mlflow": False, "log_every_steps": 1},
        "runtime": {"runs_root": str(folder / "runs")},
    }


def call(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", *map(str, arguments)], check=True, capture_output=True, text=True)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
