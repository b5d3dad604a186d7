"""The four cells on scenes, short: that the comparison runs on this machine's device, and how long a cell takes.

`make scenes-cells` is the comparison itself, with enough steps and several seeds.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ifvit
from ifvit.benchmark.main_job import call

RECIPES = Path(ifvit.__file__).parents[1] / "recipes/scenes"


def check_scenes_cells(
    cells: Sequence[str], *, steps: int, batch_size: int, num_images: int, precision: str
) -> dict[str, Any]:
    """What `ifvit compare` says of the cells, and seconds of each; `failure` has a command's error, or None."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return {"failure": None} | compare_cells(Path(folder), cells, steps, batch_size, num_images, precision)
        except subprocess.CalledProcessError as error:
            return {"failure": f"{' '.join(error.cmd[2:])}: {error.stderr[-2000:]}"}


def compare_cells(
    folder: Path, cells: Sequence[str], steps: int, batch_size: int, num_images: int, precision: str
) -> dict[str, Any]:
    values = {
        "data.coco_root": folder / "scenes",
        "data.shards_root": folder / "shards",
        "runtime.runs_root": folder / "runs",
        "train.max_steps": steps,
        "train.global_batch_size": batch_size,
        "train.micro_batch_size": batch_size,
        "train.precision": precision,
        "runtime.zero_stage": 1,
        "tracking.mlflow": "false",
    }
    sets = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    numbers = "--num-images", 10 * num_images, "--num-held-out-images", num_images
    call("data_prep", "scenes", "--out", folder / "scenes", *numbers, "--max-count", 3, "--patterns", "plain")
    call("data_prep", "shards", RECIPES / f"{cells[0]}.yaml", *sets)
    seconds = {}
    for cell in cells:
        start = time.monotonic()
        call("ifvit", "train", RECIPES / f"{cell}.yaml", *sets)
        trained = time.monotonic()
        call("ifvit", "evaluate", folder / f"runs/scenes_{cell}", "--num-images", num_images)
        seconds[cell] = {"training": trained - start, "evaluation": time.monotonic() - trained}
    runs = [folder / f"runs/scenes_{cell}" for cell in cells]
    call("ifvit", "compare", *runs, "--out", folder / "comparison")
    return {"seconds": seconds, "comparison": json.loads((folder / "comparison/comparison.json").read_text())}
