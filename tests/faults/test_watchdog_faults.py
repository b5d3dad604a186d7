"""F04, F16: a rank that is gone, stopped or stuck is named, and the job ends soon; the same command goes on exactly."""

import json
import re
from pathlib import Path

import pytest

from tests.distributed.training_runs import assert_same_outcome
from tests.faults.faulty_runs import order_of_ends
from tests.faults.overheard_runs import overheard_run
from tests.faults.training_processes import TrainingProcesses
from tests.training_fixtures import Train

WATCHDOG = "runtime.watchdog_seconds=10"
# Exit codes within so many seconds are the watchdog's doing: collective operations have 200 (LateRanks).
SECONDS_TO_END = 150
SEEN = "step.backward:6=sleep 3"  # until each rank's beat says that it is there


def assert_goes_on_exactly(folder: Path, shards_root: Path, undisturbed_pair: Path) -> None:
    assert TrainingProcesses(folder, shards_root, 2).wait() == [0, 0]
    assert_same_outcome(folder / "runs", undisturbed_pair)


@pytest.mark.fault(
    "F04",
    injected="SIGKILL of rank 1 while rank 0 waits for it in an all-reduce",
    detected="rank 0 names rank 1, its machine and where it was",
    recovered="rank 0 ends with exit code 3; the same command goes on exactly",
    lost="steps since the last checkpoint",
)
def test_a_killed_rank_is_named(shards_root: Path, undisturbed_pair: Path, tmp_path: Path) -> None:
    ranks = TrainingProcesses(tmp_path, shards_root, 2, WATCHDOG, faults=f"{SEEN}; step.backward@1:6=kill")
    assert ranks.wait(SECONDS_TO_END) == [3, -9]
    (line,) = [line for line in ranks.stderr().splitlines() if "gave no sign of life" in line]
    assert re.search(r"rank 1 on \S+ \(process \d+\) .*last seen in backward of step 6", line), line
    assert_goes_on_exactly(tmp_path, shards_root, undisturbed_pair)


@pytest.mark.fault(
    "F16",
    injected="SIGSTOP of rank 1",
    detected="rank 0 names rank 1, writes its own stacks",
    recovered="rank 0 ends with exit code 3; the same command goes on",
    lost="steps since the last checkpoint",
)
def test_a_stopped_rank_is_named(shards_root: Path, tmp_path: Path) -> None:
    ranks = TrainingProcesses(tmp_path, shards_root, 2, WATCHDOG, faults=f"{SEEN}; step.backward@1:6=stop")
    assert ranks.wait(SECONDS_TO_END, ranks=[0]) == [3]
    assert re.search(
        r"watchdog: rank 1 on \S+ .*gave no sign of life .*last seen in backward of step 6", ranks.stderr()
    )
    stacks = (ranks.run_folder / "logs/stacks-rank-00000.txt").read_text()
    assert "rank 1" in stacks.splitlines()[0]
    assert "Thread" in stacks and "loop.py" in stacks


@pytest.mark.slow_fault
@pytest.mark.fault(
    "F16",
    injected="rank 1 hangs while it reads data, rank 0 waits for it in a collective operation",
    detected="rank 1 is named with its place; both write their stacks",
    recovered="both end with exit code 3; the same command goes on exactly",
    lost="steps since the last checkpoint",
)
def test_a_rank_that_hangs_is_named_with_its_place(shards_root: Path, undisturbed_pair: Path, tmp_path: Path) -> None:
    ranks = TrainingProcesses(tmp_path, shards_root, 2, WATCHDOG, faults="step.data@1:6=sleep 600")
    assert ranks.wait(SECONDS_TO_END) == [3, 3]
    assert re.search(
        r"watchdog: rank 1 on \S+ .* does not get on: .*data of step 6 \(fault_injection.py", ranks.stderr()
    )
    assert "watchdog: rank 0" not in ranks.stderr() + ranks.stderr(1)
    for rank, function in ((0, "all_reduce"), (1, "fault_point")):
        assert function in (ranks.run_folder / f"logs/stacks-rank-{rank:05d}.txt").read_text()
        heartbeat = json.loads((ranks.run_folder / f"logs/heartbeat-rank-{rank:05d}.json").read_text())
        assert (heartbeat["rank"], heartbeat["step"]) == (rank, 6)
    assert_goes_on_exactly(tmp_path, shards_root, undisturbed_pair)


@pytest.mark.slow_fault
@pytest.mark.fault(
    "F16",
    injected="SIGSTOP of rank 0, at which the ranks meet",
    detected="rank 1 says that rank 0 does not answer",
    recovered="rank 1 ends with exit code 3; the same command goes on exactly",
    lost="steps since the last checkpoint",
)
def test_a_stopped_first_rank_is_named_by_the_others(shards_root: Path, undisturbed_pair: Path, tmp_path: Path) -> None:
    ranks = TrainingProcesses(tmp_path, shards_root, 2, WATCHDOG, faults="step.backward@0:6=stop")
    assert ranks.wait(SECONDS_TO_END, ranks=[1]) == [3]
    assert re.search("watchdog: rank 0, or the launcher on its machine, is gone or stopped", ranks.stderr(1))
    assert_goes_on_exactly(tmp_path, shards_root, undisturbed_pair)


@pytest.mark.slow_fault
@pytest.mark.fault(
    "F16",
    injected="a single process hangs while it reads data",
    detected="it is named with its place and its stacks",
    recovered="exit code 3; the same command goes on",
    lost="steps since the last checkpoint",
)
def test_a_single_process_that_hangs_ends(shards_root: Path, tmp_path: Path) -> None:
    process = TrainingProcesses(tmp_path, shards_root, 1, "runtime.watchdog_seconds=4", faults="step.data:6=sleep 600")
    assert process.wait() == [3]
    assert "does not get on" in process.stderr()
    assert "fault_point" in (process.run_folder / "logs/stacks-rank-00000.txt").read_text()
    assert TrainingProcesses(tmp_path, shards_root, 1).wait() == [0]


@pytest.mark.slow_fault
@pytest.mark.fault(
    "F04",
    injected="an error on rank 1 alone",
    detected="rank 1 shows it with its traceback, rank 0 names rank 1 and its error",
    recovered="both end; the same command goes on",
    lost="steps since the last checkpoint",
)
def test_the_error_of_another_rank_is_named(shards_root: Path, tmp_path: Path) -> None:
    ranks = TrainingProcesses(tmp_path, shards_root, 2, WATCHDOG, faults="step.forward@1:6=eio")
    assert ranks.wait() == [3, 1]
    assert re.search(r"rank 1 on \S+ .*failed in forward of step 6 .*OSError: \[Errno 5\]", ranks.stderr())
    assert "Traceback" in ranks.stderr(1)


def test_the_other_ranks_hear_of_an_error_before_what_may_hang_is_ended(train: Train, tmp_path: Path) -> None:
    """Reads in progress, and MLflow, which may be down."""
    assert train(1, tmp_path, function=order_of_ends, faults="step.forward:2=eio") == [["ranks", "batches", "report"]]


@pytest.mark.fault(
    "F16",
    injected="rank 1 takes several times as long for its forward pass, ZeRO stages 1 and 3",
    detected="after three measured steps rank 0 names rank 1 and the phase, once",
    recovered="-",
    lost="nothing but time",
)
@pytest.mark.parametrize("zero_stage", [pytest.param(1, marks=pytest.mark.slow_fault), 3])
def test_a_slow_rank_is_named_with_its_phase(train: Train, tmp_path: Path, zero_stage: int) -> None:
    overrides = [f"runtime.zero_stage={zero_stage}", "tracking.step_times_every_steps=1"]
    (outcome, told), _ = train(2, tmp_path, *overrides, function=overheard_run, faults="step.forward@1=sleep 0.3")
    assert outcome == 0
    (line,) = [line for line in told.splitlines() if line.startswith("straggler: ")]
    assert line.startswith("straggler: rank 1 on ")
    assert "most of it in forward" in line
