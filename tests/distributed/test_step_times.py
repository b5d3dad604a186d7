"""The parts of real steps: what takes long is found in its own part, and collectives are seen."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.step_times import timed_run
from tests.training_fixtures import Train

PARTS = {f"seconds_{name}" for name in ("data", "forward", "backward", "optimizer", "hooks")}


def records_of(runs_root: Path) -> dict[int, dict[str, Any]]:
    lines = (runs_root / "tiny/metrics.jsonl").read_text().splitlines()
    return {record["step"]: record for record in map(json.loads, lines)}


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_a_slow_part_is_found_and_waiting_for_a_slow_rank_is_communication(
    train: Train, tmp_path: Path, zero_stage: int
) -> None:
    """Rank 1 sleeps: of the means over both ranks a phase of its own has half a second, as has the wait of rank 0."""
    overrides = [f"runtime.zero_stage={zero_stage}", "train.max_steps=7", "checkpoint.every_steps=100"]
    overrides.append("tracking.step_times_every_steps=1")
    faults = "step.data@1:3=sleep 1; step.forward@1:5=sleep 1"
    assert train(2, tmp_path, *overrides, function=timed_run, faults=faults) == [(0, [])] * 2
    records = records_of(tmp_path)  # a line has the step before it, whose hooks wrote the line before
    assert not any(key.startswith("seconds_data") for key in records[2])
    for step in (4, 6):
        slow = "seconds_data" if step == 4 else "seconds_forward"
        assert records[step][slow] > 0.45
        assert records[step]["seconds_communication"] > 0.35
        assert sum(records[step][part] for part in PARTS) > 0.95
    assert all(records[step]["seconds_communication"] > 0 for step in range(3, 8))
    assert all(records[step][part] >= 0 for step in range(3, 8) for part in PARTS)
    assert all("seconds_checkpoint" in records[step] for step in range(2, 8))


def test_a_save_is_seen_in_the_next_line(train: Train, tmp_path: Path) -> None:
    overrides = ["checkpoint.every_steps=4", "train.max_steps=6", "tracking.step_times_every_steps=0"]
    faults = "checkpoint.copied:4=sleep 0.5"  # longer than a busy machine keeps a step without a save waiting
    assert train(1, tmp_path, *overrides, faults=faults) == [0]
    records = records_of(tmp_path)
    assert records[5]["seconds_checkpoint"] >= 0.5 > max(records[step]["seconds_checkpoint"] for step in (2, 3, 4))
    assert not PARTS & records[6].keys()
