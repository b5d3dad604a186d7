"""What `ifvit runs` shows of runs that ended as runs do."""

from pathlib import Path

from ifvit.reporting.run_overview import RunOverview, read_overviews
from tests.training_fixtures import Train


def overview(runs_root: Path) -> RunOverview:
    (only,) = read_overviews(runs_root)
    return only


def test_a_run_stopped_by_a_signal_and_then_finished(train: Train, tmp_path: Path) -> None:
    train(2, tmp_path, signal_rank=1)
    stopped = overview(tmp_path)
    assert (stopped.state, stopped.step, stopped.checkpoint_step, stopped.starts) == ("interrupted", 3, 3, 1)
    assert "SIGUSR1" in str(stopped.reason)
    train(2, tmp_path)
    finished = overview(tmp_path)
    assert (finished.state, finished.step, finished.max_steps, finished.starts) == ("finished", 8, 8, 2)
    assert (finished.checkpoint_step, finished.seconds_left) == (8, 0)


def test_a_run_whose_loss_is_no_number_has_failed(train: Train, tmp_path: Path) -> None:
    train(1, tmp_path, "optimizer.learning_rate=1.0e+30", "optimizer.warmup_steps=1")
    failed = overview(tmp_path)
    assert failed.state == "failed"
    assert failed.reason
