"""F02, F03: what tells a run to stop is obeyed at a step's end, and the same command goes on exactly."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from ifvit.checkpoint.layout import saved_steps, step_folder
from tests.distributed.training_runs import assert_bit_equal, assert_same_outcome, curve
from tests.faults.training_processes import TrainingProcesses
from tests.training_fixtures import Train

GRIDS = ["sampling.prompts=[one dog, two cats]", "sampling.num_inference_steps=3", "sampling.every_steps=3"]
GRACE_SECONDS = 120  # from a signal to the end; how long the whole start took is more


def stopped(train: Train, runs_root: Path, *overrides: str, faults: str) -> list[int | str]:
    """The exit codes of a run on two ranks that is told to stop by `faults`."""
    began = time.monotonic()
    codes = train(2, runs_root, *overrides, faults=faults)
    assert time.monotonic() - began < GRACE_SECONDS
    return codes


@pytest.mark.fault(
    "F02",
    injected="TERM, USR1, USR2 on one rank: while it loads, mid-step, at a save, at a sample grid",
    detected="all ranks agree at a step's end; rank 0 says which signal on which rank",
    recovered="saved, exit code 75, the same command goes on exactly",
    lost="nothing",
)
@pytest.mark.parametrize(
    ("faults", "last_step"),
    [
        ("step.start@1=usr1", 0),
        ("step.backward@0:3=term", 3),
        ("step.checkpoint@1:4=usr2", 5),
        ("step.sampling@1:3=usr1", 4),
    ],
)
def test_a_signal_at_any_moment_stops_all_ranks_exactly(
    train: Train, undisturbed_pair: Path, tmp_path: Path, faults: str, last_step: int
) -> None:
    assert stopped(train, tmp_path, *GRIDS, faults=faults) == [75, 75]
    is_begun = (tmp_path / "tiny/metrics.jsonl").is_file()
    done = [record["step"] for record in curve(tmp_path)] if is_begun else []
    assert done == list(range(1, last_step + 1))
    assert max(saved_steps(tmp_path / "tiny/checkpoints"), default=0) == last_step
    assert train(2, tmp_path, *GRIDS) == [0, 0]
    assert_bit_equal(tmp_path, undisturbed_pair)


@pytest.mark.fault(
    "F02",
    injected="TERM on one rank while the files of a checkpoint are still being written beside training",
    detected="all ranks agree at a step's end",
    recovered="that checkpoint and the last step's are saved, exit code 75, and each goes on exactly",
    lost="nothing",
)
def test_a_signal_beside_a_save_leaves_two_checkpoints(train: Train, undisturbed_pair: Path, tmp_path: Path) -> None:
    faults = "checkpoint.write@1:4-5=sleep 0.3; step.data@1:5=term"
    assert stopped(train, tmp_path, faults=faults) == [75, 75]
    checkpoints = tmp_path / "tiny/checkpoints"
    assert saved_steps(checkpoints) == [4, 5]
    for lost_afterwards in ((5, 8), ()):
        assert train(2, tmp_path) == [0, 0]
        assert_bit_equal(tmp_path, undisturbed_pair)
        for step in lost_afterwards:
            shutil.rmtree(step_folder(checkpoints, step))


@pytest.mark.fault(
    "F02",
    injected="USR1 in the last step",
    detected="-",
    recovered="the run ends as it would have, exit code 0, its last grid is there",
    lost="nothing",
)
def test_a_signal_in_the_last_step_is_no_interruption(train: Train, undisturbed_pair: Path, tmp_path: Path) -> None:
    assert train(2, tmp_path, *GRIDS, faults="step.data:8=usr1") == [0, 0]
    assert (tmp_path / "tiny/samples/step-00000008.png").is_file()
    assert_bit_equal(tmp_path, undisturbed_pair)


@pytest.mark.fault(
    "F03",
    injected="the time limit is over in every start",
    detected="each start makes one step, saves, and says runtime.max_hours",
    recovered="exit code 75 until the last step, then 0; exact",
    lost="nothing",
)
def test_a_time_limit_stops_every_start_and_the_run_comes_to_its_end(
    train: Train, undisturbed_pair: Path, tmp_path: Path
) -> None:
    codes = [train(2, tmp_path, "runtime.max_hours=1.0e-6") for _ in range(8)]
    assert codes == [[75, 75]] * 7 + [[0, 0]]
    assert_bit_equal(tmp_path, undisturbed_pair)


def waits_for_rank_1(run_folder: Path) -> bool:
    """Whether both ranks say that they are in step 6, rank 0 at or beyond its first collective operation."""
    files = [run_folder / f"logs/heartbeat-rank-{rank:05d}.json" for rank in range(2)]
    texts = [file.read_text() for file in files if file.is_file()]
    if len(texts) < 2 or not all(texts):  # a file is there before its first line
        return False
    first, second = map(json.loads, texts)
    return first["step"] == second["step"] == 6 and first["phase"] not in ("data", "forward")


@pytest.mark.slow_fault
@pytest.mark.fault(
    "F02",
    injected="TERM twice, the second one while the rank waits for another in a collective operation",
    detected="the process says so",
    recovered="it ends at once; the same command goes on from the last checkpoint",
    lost="steps since the last checkpoint",
)
def test_a_second_signal_ends_a_rank_that_hangs(shards_root: Path, undisturbed_pair: Path, tmp_path: Path) -> None:
    with TrainingProcesses(tmp_path, shards_root, 2, faults="step.forward@1:6=sleep 600") as ranks:
        deadline = time.monotonic() + 240
        while not waits_for_rank_1(ranks.run_folder):
            assert time.monotonic() < deadline, ranks.stderr() + ranks.stderr(1)
            time.sleep(0.1)
        ranks.send(0, signal.SIGTERM)
        ranks.wait_for("SIGTERM: stops and saves after this step")
        time.sleep(1.5)  # within a second both would be one request
        ranks.send(0, signal.SIGTERM)
        assert ranks.wait(60, ranks=[0]) == [128 + signal.SIGTERM]
    assert "the second signal, ended at once" in ranks.stderr()
    assert TrainingProcesses(tmp_path, shards_root, 2).wait() == [0, 0]
    assert_same_outcome(tmp_path / "runs", undisturbed_pair)


@pytest.mark.slow_fault
@pytest.mark.fault(
    "F03",
    injected="a time limit, and three starts of the same command after it, with MLflow",
    detected="rank 0 says runtime.max_hours",
    recovered="the same run directory and the same MLflow run",
    lost="nothing",
)
def test_a_time_limit_and_three_restarts_are_one_run(shards_root: Path, tmp_path: Path) -> None:
    fields = ("tracking.mlflow=true", "runtime.max_hours=1.0e-6", "train.max_steps=4")
    identities, codes = set(), []
    for _ in range(4):
        command = TrainingProcesses(tmp_path, shards_root, 1, *fields)
        codes += command.wait()
        assert ("stopped by runtime.max_hours on rank 0" in command.stderr()) == (codes[-1] == 75)
        identities.add(json.loads((command.run_folder / "mlflow.json").read_text())["run_id"])
    assert codes == [75, 75, 75, 0]
    assert len(identities) == 1
    assert [record["step"] for record in curve(tmp_path / "runs")] == [1, 2, 3, 4]
