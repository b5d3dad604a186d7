"""F15: a bit that flips in a weight of one rank is found, the rank and the parameter are named, nothing is saved."""

from pathlib import Path

import pytest

from tests.faults.training_processes import TrainingProcesses
from tests.training_fixtures import Train

EVERY_STEP = "runtime.replica_check_every_steps=1"


@pytest.mark.fault(
    "F15",
    injected="one bit of one weight flipped on one of three ranks, ZeRO stage 0, in step 3",
    detected="at the next comparison, here after step 4: rank and parameter are named",
    recovered="exit code 3 on all ranks, nothing is saved",
    lost="steps since the last checkpoint",
)
def test_a_flipped_bit_is_found_and_its_rank_named(shards_root: Path, tmp_path: Path) -> None:
    fields = ("train.global_batch_size=6", "train.micro_batch_size=2", "runtime.zero_stage=0")
    checks = ("runtime.replica_check_every_steps=2", "checkpoint.every_steps=2", "checkpoint.asynchronous=false")
    ranks = TrainingProcesses(tmp_path, shards_root, 3, *fields, *checks, faults="step.replica@1:3=flip")
    assert ranks.wait() == [3, 3, 3]
    (line,) = [line for line in ranks.stderr().splitlines() if line.startswith("stopped: ")]
    assert "not the same after step 4: rank 1 on " in line
    assert "differs in " in line
    assert "was after step 2" in line
    saved = sorted(folder.name for folder in (ranks.run_folder / "checkpoints").glob("step-*"))
    assert saved == ["step-00000002"]


@pytest.mark.fault(
    "F15",
    injected="one bit of a gathered weight flipped on one of two ranks, ZeRO stages 1 to 3",
    detected="at the comparison in the same step; the rank by the float32 weights",
    recovered="all ranks stop, nothing is saved",
    lost="steps since the last checkpoint; a bit that the next update wrote over is not found",
)
@pytest.mark.parametrize("zero_stage, precision", [(1, "bf16"), (2, "fp32"), (3, "fp32")])
def test_a_flipped_bit_of_a_sharded_run_is_found(train: Train, tmp_path: Path, zero_stage: int, precision: str) -> None:
    overrides = [f"runtime.zero_stage={zero_stage}", f"train.precision={precision}", EVERY_STEP]
    for message in train(2, tmp_path, *overrides, faults="step.replica@1:3=flip"):
        assert "not the same after step 3: rank 1 on " in str(message)
    assert not list((tmp_path / "tiny/checkpoints").glob("step-*"))


def test_equal_replicas_are_left_alone(train: Train, tmp_path: Path) -> None:
    assert train(2, tmp_path, "runtime.zero_stage=2", EVERY_STEP) == [0, 0]
