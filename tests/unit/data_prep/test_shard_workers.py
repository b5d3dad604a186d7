"""data_prep/shard_workers.py"""

import pytest

from data_prep.shards import default_workers


@pytest.mark.parametrize("given, expected", [("", 4), ("2", 1), ("4", 2), ("1", 1), ("64", 4)])
def test_workers_by_the_cores_that_a_task_has(monkeypatch: pytest.MonkeyPatch, given: str, expected: int) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
    assert default_workers() == expected
