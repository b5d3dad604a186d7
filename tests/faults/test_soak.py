"""A training of two ranks that is killed again and again, and restarted by the same command."""

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from tests.distributed.training_runs import assert_same_outcome
from tests.faults.training_processes import TrainingProcesses

VICTIMS = ((0, 1), (0, 1), (0,), (1,))  # a rank that survives takes some seconds to name the other
SLOW_STEPS = "step.data=sleep 0.25"  # so that the undisturbed run needs a small part of the time
TIMEOUT_SECONDS = 900  # of a start without kills, on a busy machine


class KilledTraining:
    """The run in `folder`, its log and the recipe that every start is given."""

    def __init__(self, folder: Path, shards_root: Path) -> None:
        self.folder = folder
        self.shards_root = shards_root
        self.log = folder / "runs/tiny/metrics.jsonl"
        self.kills = 0

    def start(self, max_steps: int, faults: str = "") -> TrainingProcesses:
        overrides = [f"train.max_steps={max_steps}", "checkpoint.every_steps=4", "runtime.watchdog_seconds=20"]
        return TrainingProcesses(self.folder, self.shards_root, 2, *overrides, faults=faults)

    def last_step(self) -> int:
        lines = self.log.read_bytes().splitlines() if self.log.is_file() else []
        whole = [line for line in lines if line.endswith(b"}")]
        return int(json.loads(whole[-1])["step"]) if whole else 0

    def live(self, chance: random.Random, seconds: float) -> None:
        """One start, killed on one rank or both `seconds` after its first step; one in five while it starts."""
        with self.start(10**6, SLOW_STEPS) as job:
            if chance.random() < 0.2:
                time.sleep(chance.uniform(0, 4))
            else:
                before = self.last_step()
                wait_for(lambda: self.last_step() not in (0, before) or not is_running(job))
                time.sleep(seconds)
            assert is_running(job), job.stderr(0) + job.stderr(1)
            for rank in chance.choice(VICTIMS):
                job.send(rank, signal.SIGKILL)
            job.wait()
        self.kills += 1

    def goodput(self, seconds: float) -> str:
        """Of `seconds` with kills: which share of the steps was kept, and of the time went into those."""
        records = [json.loads(line) for line in self.log.read_text().splitlines()]
        discarded = self.log.with_name("metrics.discarded.jsonl")
        redone = len(discarded.read_text().splitlines()) if discarded.is_file() else 0
        step_seconds = median(later["time"] - earlier["time"] for earlier, later in pairwise(records))
        return (
            f"{self.kills} kills in {seconds:.0f} s: {len(records)} steps kept and {redone} done again; goodput "
            f"{len(records) / (len(records) + redone):.1%} of the steps, "
            f"{len(records) * step_seconds / seconds:.1%} of the time"
        )


def is_running(job: TrainingProcesses) -> bool:
    return all(process.is_alive() for process in job.processes)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def finish(training: KilledTraining, max_steps: int) -> None:
    job = training.start(max_steps)
    assert job.wait(TIMEOUT_SECONDS) == [0, 0], job.stderr(0) + job.stderr(1)


def soak(folder: Path, shards_root: Path, lives: Iterator[float]) -> None:
    """Kill and restart for each of `lives`; then the run's end must be that of an undisturbed one, bit for bit."""
    killed, chance = KilledTraining(folder / "killed", shards_root), random.Random(0)
    start = time.monotonic()
    for seconds in lives:
        killed.live(chance, seconds)
    print(killed.goodput(time.monotonic() - start))
    max_steps = killed.last_step() + 10
    finish(killed, max_steps)
    finish(KilledTraining(folder / "whole", shards_root), max_steps)
    assert_same_outcome(folder / "killed/runs", folder / "whole/runs")


@pytest.mark.slow_fault
@pytest.mark.fault(
    "F27",
    injected="SIGKILL to one rank or both, at five random moments of two ranks' training",
    detected="the other rank's collective operation fails",
    recovered="the same command goes on; weights, moments, averages and log equal the undisturbed run's bit for bit",
    lost="the steps since the last checkpoint, which are done again",
)
def test_five_kills_change_nothing(shards_root: Path, tmp_path: Path) -> None:
    chance = random.Random(1)
    soak(tmp_path, shards_root, (chance.uniform(0, 2) for _ in range(5)))


@pytest.mark.soak
@pytest.mark.fault(
    "F27",
    injected="SIGKILL about every 20 s for eight minutes of two ranks' training",
    detected="the other rank's collective operation fails",
    recovered="the same command goes on; weights, moments, averages and log equal the undisturbed run's bit for bit",
    lost="the steps since the last checkpoint, which are done again; goodput is printed",
)
def test_kills_for_eight_minutes_change_nothing(shards_root: Path, tmp_path: Path) -> None:
    chance, end = random.Random(1), time.monotonic() + 480
    soak(tmp_path, shards_root, iter(lambda: None if time.monotonic() > end else chance.uniform(8, 24), None))
