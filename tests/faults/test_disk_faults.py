"""F05 and F08: disks that are full, broken or slow."""

import resource
from pathlib import Path

import pytest

from ifvit.checkpoint.layout import MANIFEST, saved_steps, step_folder
from ifvit.checkpoint.saver import SaveError
from ifvit.runtime.distributed import Ranks
from tests.distributed.rank_pool import RankPool
from tests.distributed.training_runs import assert_bit_equal, assert_same_outcome, curve
from tests.faults.faulty_runs import json_lines
from tests.faults.training_processes import TrainingProcesses
from tests.forked_process import exit_code, forked
from tests.injected_faults import injected
from tests.saved_states import intact_steps, make_saver, progress_of, save, values_of
from tests.training_fixtures import Overheard

SHAPES = {"weight": (300, 100), "bias": (7,)}


def fill_disk_from_step_2(checkpoints: Path) -> None:
    """No file may grow beyond 10 kB once step 1 is saved."""
    saver = make_saver(checkpoints, shapes=SHAPES, max_failed_saves=2)
    for step in range(1, 10):
        saver.start(progress_of(step), values_of(step, SHAPES))
        try:
            saver.wait()
        except SaveError as error:
            (checkpoints / "error").write_text(f"{step}: {error}")
            return
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))


@pytest.mark.fault(
    "F05",
    injected="no file may grow any more (RLIMIT_FSIZE), as on a disk that is full",
    detected="a line on stderr for each failed save, with the system's reason",
    recovered="the old checkpoint stays; after checkpoint.max_failed_saves in a row the run ends with exit code 1",
    lost="steps after the last save that worked",
)
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_code(forked(lambda: fill_disk_from_step_2(tmp_path))) == 0
    told = capfd.readouterr().err
    assert [f"step {step} FAILED" in told for step in (1, 2, 3, 4)] == [False, True, True, False]
    assert "File too large" in told
    error = (tmp_path / "error").read_text()
    assert error.startswith("3: 2 saves in a row failed") and "is the disk" in error
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["step-00000001"]
    assert intact_steps(tmp_path) == [1]


@pytest.mark.fault(
    "F05",
    injected="no space left for the files of rank 1, at every save",
    detected="a line on stderr of rank 1 at once; all ranks know by the next step",
    recovered="the run goes on until checkpoint.max_failed_saves failed in a row, then ends on all ranks with an error",
    lost="steps after the last save that worked",
)
def test_saves_that_fail_on_one_rank_end_the_run_on_all(overheard: Overheard, tmp_path: Path) -> None:
    overrides = ["checkpoint.every_steps=1", "checkpoint.max_failed_saves=2"]
    outcomes = overheard(2, tmp_path, *overrides, faults="checkpoint.write@1:3-99=enospc")
    for outcome, _ in outcomes:
        assert "2 saves in a row failed, the last at step 4: rank 1: [Errno 28] No space left" in str(outcome)
        assert "The newest checkpoint is step 2" in str(outcome)
    assert "checkpoint of step 3 FAILED on rank 1 while writing" in outcomes[1][1]
    assert [path.name for path in (tmp_path / "tiny/checkpoints").iterdir()] == ["step-00000001", "step-00000002"]


GRIDS = ["sampling.prompts=[A red bus., Two cats.]", "sampling.num_inference_steps=3", "sampling.every_steps=2"]


@pytest.mark.fault(
    "F05",
    injected="no space left for any file of the run, from step 3 to the end of step 6",
    detected="said on stderr once, for metrics and logs, for sample grids and for each failed save",
    recovered="the run goes on; its metrics wait in memory and are in the file, each step once, when there is space",
    lost="the sample grids made meanwhile",
)
def test_a_disk_that_is_full_for_a_while_loses_no_metrics(
    overheard: Overheard, undisturbed: Path, tmp_path: Path
) -> None:
    overrides = ["checkpoint.every_steps=2", "checkpoint.asynchronous=false", *GRIDS]
    faults = "step.data:3=full; step.data:7=space"
    ((code, told),) = overheard(1, tmp_path, *overrides, faults=faults, records_samples=False)
    assert code == 0
    for what in ("metrics and logs", "sample grids"):
        assert (
            told.count(f"{what} CANNOT BE WRITTEN: File too large") == told.count(f"{what} can be written again") == 1
        )
    assert_same_outcome(tmp_path, undisturbed)
    assert saved_steps(tmp_path / "tiny/checkpoints") == [2, 8]
    grids = [f"step-{step:08d}.png" for step in (2, 8)]
    assert sorted(path.name for path in (tmp_path / "tiny/samples").iterdir()) == grids


@pytest.mark.fault(
    "F05",
    injected="no space left for any file of a run of two ranks, from step 5 on",
    detected="said on stderr once, and for each failed save; at the end how many lines of metrics are lost",
    recovered="the run goes on until checkpoint.max_failed_saves failed in a row; the same command goes on exactly",
    lost="steps after the last save that worked",
)
def test_a_full_disk_ends_the_run_by_its_failed_saves_alone(
    overheard: Overheard, undisturbed_pair: Path, tmp_path: Path
) -> None:
    overrides = ["checkpoint.every_steps=1", "checkpoint.max_failed_saves=3", "checkpoint.asynchronous=false", *GRIDS]
    outcomes = overheard(2, tmp_path, *overrides, faults="step.data:5=full", records_samples=False)
    assert ["3 saves in a row failed, the last at step 7" in str(outcome) for outcome, _ in outcomes] == [True, True]
    told = outcomes[0][1]
    assert told.count("metrics and logs CANNOT BE WRITTEN") == told.count("sample grids CANNOT BE WRITTEN") == 1
    assert "lines that are lost: 3 of metrics.jsonl" in told
    assert [record["step"] for record in curve(tmp_path)] == [1, 2, 3, 4]
    assert [code for code, _ in overheard(2, tmp_path, *overrides, records_samples=False)] == [0, 0]
    assert_same_outcome(tmp_path, undisturbed_pair)


@pytest.mark.fault(
    "F08",
    injected="EIO in the files of rank 1 at one save of a run",
    detected="a line on stderr of rank 1 at once; all ranks know by the next step",
    recovered="the run goes on, and the next save works",
    lost="nothing",
)
def test_one_failed_save_changes_nothing(overheard: Overheard, undisturbed_pair: Path, tmp_path: Path) -> None:
    outcomes = overheard(2, tmp_path, "checkpoint.every_steps=2", faults="checkpoint.file_written@1:4=eio")
    assert [code for code, _ in outcomes] == [0, 0]
    assert "checkpoint of step 4 FAILED on rank 1" in outcomes[1][1] and "Input/output error" in outcomes[1][1]
    assert saved_steps(tmp_path / "tiny/checkpoints") == [2, 6, 8]
    assert_bit_equal(tmp_path, undisturbed_pair)


@pytest.mark.fault(
    "F08",
    injected="EIO at the last save of a run",
    detected="a line on stderr at once",
    recovered="the last step is saved once more; where that fails too the run ends with an error",
    lost="nothing, or the steps since the last save that worked",
)
def test_the_last_step_is_saved_or_the_run_fails(overheard: Overheard, tmp_path: Path) -> None:
    ((outcome, told),) = overheard(1, tmp_path, "train.max_steps=2", faults="checkpoint.write:2=eio")
    assert "step 2 could not be saved: rank 0: [Errno 5] Input/output error" in str(outcome)
    assert "checkpoint of step 2 FAILED on rank 0" in told
    assert saved_steps(tmp_path / "tiny/checkpoints") == []


@pytest.mark.fault(
    "F08",
    injected="storage slower than the interval between saves",
    detected="the next save waits for the one before",
    recovered="at most one is in flight, each is whole, and the last step waits for its own",
    lost="time",
)
def test_overlapping_saves_wait_for_each_other(overheard: Overheard, undisturbed_pair: Path, tmp_path: Path) -> None:
    faults = "checkpoint.write=sleep 0.1; checkpoint.before_rename@0=sleep 0.1"
    outcomes = overheard(2, tmp_path, "checkpoint.every_steps=1", "checkpoint.keep_last=9", faults=faults)
    assert [code for code, _ in outcomes] == [0, 0]
    assert intact_steps(tmp_path / "tiny/checkpoints") == [*range(1, 9)]
    assert_bit_equal(tmp_path, undisturbed_pair)


@pytest.mark.slow_fault
@pytest.mark.fault(
    "F08",
    injected="storage that stands still for 30 s in a save of rank 1",
    detected="the last save is waited for",
    recovered="steps go on meanwhile, and the checkpoint is whole in the end",
    lost="time",
)
def test_storage_that_stands_still(overheard: Overheard, undisturbed_pair: Path, tmp_path: Path) -> None:
    # Two threads write five files.
    outcomes = overheard(2, tmp_path, faults="checkpoint.write@1:4=sleep 10")
    assert [code for code, _ in outcomes] == [0, 0]
    assert_bit_equal(tmp_path, undisturbed_pair)
    manifest = step_folder(tmp_path / "tiny/checkpoints", 4) / MANIFEST  # its file that is written last
    last_step = json_lines(tmp_path / "tiny/metrics.jsonl")[-1]
    assert last_step["step"] == 8
    assert last_step["time"] < manifest.stat().st_mtime


def wait_for_slow_storage(ranks: Ranks, checkpoints: Path) -> str:
    saver = make_saver(checkpoints, ranks=ranks, patience_seconds=2)  # rank 0's own files are on the disk by then
    with injected("checkpoint.write@1=sleep 5"):
        try:
            save(saver, 1)
        except SaveError as error:
            assert saver.current is not None
            saver.current.join()  # nobody else may find it in this process
            return str(error)
    return "saved"


@pytest.mark.fault(
    "F08",
    injected="storage that stands still for longer than a save may take",
    detected="the error says which rank waits for which file",
    recovered="the run ends on all ranks, after five times runtime.watchdog_seconds",
    lost="the steps since the last save that worked",
)
def test_a_save_that_does_not_end_is_named(pools: dict[int, RankPool], tmp_path: Path) -> None:
    for told in pools[2].run(wait_for_slow_storage, checkpoints=tmp_path):
        assert "checkpoint of step 1: not done after 2 s (runtime.watchdog_seconds gives more): rank 0 is" in told
        assert "rank-00001.json; rank 1 is writing" in told


@pytest.mark.fault(
    "F05",
    injected="no space left at any save",
    detected="a line on stderr for each failed save",
    recovered="nothing: the command ends with exit code 1 and says that the disk may be full",
    lost="the run",
)
def test_a_run_that_cannot_be_saved_ends_with_code_1(shards_root: Path, tmp_path: Path) -> None:
    overrides = ("checkpoint.every_steps=1", "checkpoint.max_failed_saves=2")
    job = TrainingProcesses(tmp_path, shards_root, 1, *overrides, faults="checkpoint.write=enospc")
    assert job.wait() == [1]
    assert "stopped: 2 saves in a row failed, the last at step 2: rank 0: [Errno 28]" in job.stderr()
    assert "full or broken? The newest checkpoint is from before this start, if there is one" in job.stderr()
