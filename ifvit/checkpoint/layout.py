"""The names inside a run's checkpoints folder.

step-00001000/
    rank-00000.weights.safetensors ...   each rank's share of the weights, and so on for both moments and each average
    manifest.json                        written last: what is in which file, and the files' digests
.unfinished-step-.../                    being written, or left by a killed process
.removed-step-.../                       being removed, or left by a killed process
"""

import re
from pathlib import Path

MANIFEST = "manifest.json"
WEIGHTS = "weights"
UNFINISHED, REMOVED = ".unfinished-", ".removed-"


def ema_kind(decay: float) -> str:
    """The kind under which the average of `decay` is stored."""
    return f"ema-{decay}"


def tensor_key(kind: str, name: str) -> str:
    return f"{kind}/{name}"


def rank_file(rank: int, kind: str) -> str:
    return f"rank-{rank:05d}.{kind}.safetensors"


def report_file(rank: int) -> str:
    """By which `rank` tells rank 0 what it wrote; gone once the manifest says it."""
    return f"rank-{rank:05d}.json"


def step_folder(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"step-{step:08d}"


def unfinished_folder(checkpoints: Path, step: int, attempt: int) -> Path:
    """Where a checkpoint is written before it gets its name; no two saves of one process share an `attempt`."""
    return checkpoints / f"{UNFINISHED}{step_folder(checkpoints, step).name}.{attempt}"


def removed_folder(folder: Path) -> Path:
    """What the checkpoint in `folder` is called while its files are removed one by one."""
    return folder.with_name(f"{REMOVED}{folder.name}")


def saved_steps(checkpoints: Path) -> list[int]:
    """Steps with a finished checkpoint, ascending. Whether it is intact is for `verify` to say."""
    names = (entry.name for entry in checkpoints.iterdir()) if checkpoints.is_dir() else ()
    return sorted(int(match[1]) for name in names if (match := re.fullmatch(r"step-(\d{8,})", name)))
