"""Run folders as training and evaluation leave them, with made-up numbers: all that `ifvit compare` reads."""

import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifvit.config.loading import resolved_yaml
from ifvit.evaluation.results import FORMAT_VERSION
from tests.drawn_coco import tiny_recipe

BATCH, STEPS, STEPS_PER_RECORD = 4, 200, 10


def write_run(
    runs_root: Path, name: str, *overrides: str, quality: float | None = 0.5, **protocol: Any
) -> dict[str, Any] | None:
    """A run of 200 steps at `quality` (match ratio on val, 0 to 1), or, for None, one that was not evaluated.

    Returns what its results.json has; `protocol` changes fields of its protocol.
    """
    folder = runs_root / name
    folder.mkdir(parents=True)
    recipe = tiny_recipe(runs_root / "coco", runs_root / "shards", f"name={name}", *overrides)
    (folder / "recipe.yaml").write_text(resolved_yaml(recipe))
    attempt = {"device": "cpu", "world_size": 1, "gpus": [], "cpu": {"model": "Test CPU", "count": 2}, "first_step": 0}
    (folder / "environment.json").write_text(json.dumps({"attempts": [attempt]}))
    generator = random.Random(name)
    records = [
        {
            "step": step,
            "samples_seen": step * BATCH,
            "loss": 1 / step,
            "samples_per_second": BATCH * generator.uniform(9, 11),
        }
        for step in range(STEPS_PER_RECORD, STEPS + 1, STEPS_PER_RECORD)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return None if quality is None else write_results(folder, quality, **protocol)


def write_results(
    run: Path,
    quality: float,
    time: str = "2026-11-22T00:00:00",
    step: int | None = STEPS,
    checkpoint: Mapping[str, Any] = {},
    **protocol: Any,
) -> dict[str, Any]:
    """Add an evaluation with the run's recipe; `checkpoint` and `protocol` change fields of those sections."""
    splits = {
        split: {
            "generated": metrics(quality - drop),
            "reconstructions": metrics(0.98),
            "real": metrics(1.0),
        }
        for split, drop in (("val", 0.0), ("unseen", 0.1))
    }
    results = {
        "format_version": FORMAT_VERSION,
        "run": run.name,
        "time": time,
        "checkpoint": {
            "step": step,
            "ema_decay": 0.9,
            "weights_sha256": f"{run.name} {step}",
            "scaling_factor": 0.5,
            "diffusion": {"beta_end": 0.012},
            **checkpoint,
        },
        "protocol": {
            "splits": {split: {"num_images": 500, "captions_sha256": "1" * 64} for split in splits},
            "guidance_scale": 2.0,
            "omega": 1.0,
            "solver": "dpmsolver++_singlestep_3",
            "num_inference_steps": 50,
            "seed": 0,
            **protocol,
        },
        "splits": splits,
        "notice": "",
        "encoders": {},
        "generation": {"starts": []},
        "measured_on": {"device": "cpu"},
        "seconds": {"generation": None, "measuring": 1.0},
    }
    weights = "weights" if step is None else f"step-{step:08d}"
    folder = run / "evaluation" / f"{weights}-{len(list(run.glob('evaluation/*'))):08x}"
    folder.mkdir(parents=True)
    shutil.copy(run / "recipe.yaml", folder)
    (folder / "results.json").write_text(json.dumps(results))
    return results


def metrics(quality: float) -> dict[str, Any]:
    """All metrics of images that are as good as `quality`; 1.0 is real."""
    return {
        "frechet_distance": {"distance": 100 * (1 - quality), "full_rank": True},
        "clip_score": {"cosine": 0.3 * quality, "paper_form": 0.7 * quality, "remarks": ["CLIP score: a cosine"]},
        "scene_alignment": {
            "average_match_ratio": quality,
            "average_error": 2 * (1 - quality),
            "total_count_match": quality,
            "color_accuracy": quality,
            "shape_accuracy": quality,
            "relation_accuracy": quality / 2,
        },
    }
