"""Resident memory of ranks that train for long."""

import json
import time
from pathlib import Path
from statistics import median

import psutil
import pytest

from tests.faults.training_processes import TrainingProcesses

STEPS = 500
MEGABYTE = 10**6


def last_step(log: Path) -> int:
    lines = [line for line in log.read_bytes().splitlines() if line.endswith(b"}")] if log.is_file() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


@pytest.mark.soak
def test_memory_stays_flat_at_stage_3(shards_root: Path, tmp_path: Path) -> None:
    """Two ranks, 500 steps with five saves; the second save has made what there is to make."""
    slow = "step.data=sleep 0.03"  # so that memory is looked at in nearly every step
    overrides = ["runtime.zero_stage=3", f"train.max_steps={STEPS}", "checkpoint.every_steps=100"]
    seen: dict[int, list[int]] = {}
    with TrainingProcesses(tmp_path, shards_root, 2, *overrides, faults=slow) as job:
        ranks = [psutil.Process(process.pid) for process in job.processes]
        while (step := last_step(job.run_folder / "metrics.jsonl")) < STEPS - 1:
            if not all(process.is_alive() for process in job.processes):
                break
            seen[step] = [rank.memory_info().rss for rank in ranks]
            time.sleep(0.02)
        assert job.wait() == [0, 0], job.stderr(0) + job.stderr(1)
    for rank in range(2):
        early, late = (
            median(resident[rank] for step, resident in seen.items() if first <= step < first + 100)
            for first in (200, STEPS - 100)
        )
        print(f"rank {rank}: {early / MEGABYTE:.1f} MB in steps 200 to 300, {late / MEGABYTE:.1f} MB in the last 100")
        assert late - early < 2 * MEGABYTE
