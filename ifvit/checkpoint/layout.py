"""The names inside a run's checkpoints folder.

step-00001000/
    rank-00000.safetensors ...   each rank's part of weights, moments and averages, under keys like "weights/NAME"
    manifest.json                written last: what is in which file, and the files' digests
"""

import re
from pathlib import Path

MANIFEST = "manifest.json"
WEIGHTS = "weights"


def ema_kind(decay: float) -> str:
    """The kind under which the average of `decay` is stored."""
    return f"ema-{decay}"


def tensor_key(kind: str, name: str) -> str:
    return f"{kind}/{name}"


def rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def step_folder(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"step-{step:08d}"


def unfinished_folder(checkpoints: Path, step: int) -> Path:
    """Where a checkpoint is written before it gets its name."""
    return checkpoints / f".unfinished-step-{step:08d}"


def saved_steps(checkpoints: Path) -> list[int]:
    """Steps with a finished checkpoint, ascending. Whether it is intact is for `manifest.verify` to say."""
    names = (entry.name for entry in checkpoints.iterdir()) if checkpoints.is_dir() else ()
    return sorted(int(match[1]) for name in names if (match := re.fullmatch(r"step-(\d{8,})", name)))
