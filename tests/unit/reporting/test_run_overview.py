"""State and numbers of a run, from what lies in its folder."""

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ifvit.config.errors import UserError
from ifvit.reporting.run_overview import RunOverview, read_overviews
from ifvit.runtime.environment import append_attempt, end_attempt
from ifvit.runtime.run_directory import RunDirectory, open_run
from tests.drawn_coco import tiny_recipe

STARTED = "2026-01-02T03:04:05+00:00"
START_TIME = 1_767_323_045.0


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    """A run of 100 steps of 4 samples that was started once, and that nobody holds."""
    run = new_run(tmp_path / "runs")
    yield run
    run.release()


def new_run(runs_root: Path, name: str = "tiny", *overrides: str) -> RunDirectory:
    recipe = tiny_recipe(
        Path("/nowhere"), Path("/nowhere"), f"name={name}", f"runtime.runs_root={runs_root}", "train.max_steps=100",
        *overrides,
    )  # fmt: skip
    run, _ = open_run(recipe)
    run.release()
    append_attempt(run.environment_file, {"time": STARTED, "first_step": 0})
    os.utime(run.checkpoints, (START_TIME, START_TIME))
    return run


def log(run: RunDirectory, *steps: int, **values: Any) -> None:
    with run.metrics_file.open("a") as file:
        for step in steps:
            record = {"step": step, "time": START_TIME + step, "loss": 1.0, "samples_per_second": 8.0} | values
            file.write(json.dumps(record) + "\n")


def overview(run: RunDirectory) -> RunOverview:
    (only,) = read_overviews(run.path)
    return only


def test_a_run_that_is_held_is_running(run: RunDirectory) -> None:
    log(run, 10, 20, loss=2.0)
    log(run, 30, loss=0.5)
    run.lock()
    seen = overview(run)
    assert (seen.state, seen.step, seen.max_steps, seen.starts) == ("running", 30, 100, 1)
    assert seen.loss == pytest.approx(1.5)
    assert seen.samples_per_second == 8
    assert seen.seconds_left == pytest.approx(70 * 4 / 8)
    assert seen.updated == START_TIME + 30
    assert (seen.checkpoint_step, seen.validation_loss, seen.reason) == (None, None, None)


def test_a_loss_that_is_no_number_does_not_hide_the_others(run: RunDirectory) -> None:
    log(run, 10, loss=None)  # what was not finite is null
    assert math.isnan(overview(run).loss or 0)
    log(run, 20, loss=3.0)
    assert overview(run).loss == 3


def test_what_the_last_start_said_of_its_end(run: RunDirectory) -> None:
    log(run, 10)
    end_attempt(run.environment_file, "interrupted", "SIGTERM")
    assert (overview(run).state, overview(run).reason) == ("interrupted", "SIGTERM")
    assert overview(run).updated > START_TIME + 10
    run.lock()  # by a start that has not written its record yet
    assert (overview(run).state, overview(run).reason) == ("running", None)
    run.release()
    append_attempt(run.environment_file, {"time": STARTED, "first_step": 10})
    run.lock()
    assert (overview(run).state, overview(run).reason, overview(run).starts) == ("running", None, 2)
    run.release()
    assert (overview(run).state, overview(run).reason) == ("stale", None)  # it was killed


def test_runs_that_do_not_say_how_they_ended(run: RunDirectory) -> None:
    log(run, 90)
    assert overview(run).state == "stale"
    (run.checkpoints / "step-00000100").mkdir()
    (run.checkpoints / ".unfinished-step-00000200.1").mkdir()
    assert (overview(run).state, overview(run).checkpoint_step) == ("finished", 100)


def test_a_start_before_its_first_line_stands_where_it_began(run: RunDirectory) -> None:
    assert overview(run).step == 0
    append_attempt(run.environment_file, {"time": STARTED, "first_step": 40})
    seen = overview(run)
    assert (seen.step, seen.loss, seen.samples_per_second, seen.seconds_left) == (40, None, None, None)


def test_the_newest_validation_loss_may_stand_far_back(tmp_path: Path) -> None:
    run = new_run(tmp_path / "runs", "validated", "data.validation_split=held_out")
    assert overview(run).validation_loss is None
    log(run, 1, validation_loss=3.0)
    log(run, 2, validation_loss=2.0)
    log(run, 3, validation_loss=None)  # it was not finite
    log(run, *range(4, 3000), padding="x" * 100)
    assert run.metrics_file.stat().st_size > 400_000
    assert overview(run).validation_loss == 2.0


def test_runs_that_run_come_first_then_the_newest(tmp_path: Path) -> None:
    runs = [new_run(tmp_path / "runs", name) for name in ("a", "b", "c")]
    for step, run in zip((50, 70, 60), runs, strict=True):
        log(run, step)
    runs[0].lock()
    assert [seen.name for seen in read_overviews(tmp_path / "runs")] == ["a", "b", "c"]
    runs[0].release()
    assert [seen.name for seen in read_overviews(tmp_path / "runs")] == ["b", "c", "a"]


def test_what_cannot_be_read_is_said_and_hides_no_other(run: RunDirectory, tmp_path: Path) -> None:
    other = new_run(tmp_path / "runs", "other")
    run.environment_file.write_text("{")
    (tmp_path / "runs/mlflow.db").write_text("no run")
    by_name = {seen.name: seen for seen in read_overviews(tmp_path / "runs")}
    assert by_name.keys() == {"tiny", "other"}
    assert by_name["tiny"].state == "unreadable"
    assert by_name["tiny"].reason
    assert by_name["other"].state == "stale"
    other.recipe_file.write_text("train: 3")
    assert overview(other).state == "unreadable"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be listed"):
        read_overviews(tmp_path / "nowhere")


def test_a_clock_of_another_machine_is_never_ahead(run: RunDirectory) -> None:
    log(run, 10, time=time.time() + 5000)
    assert overview(run).updated <= time.time()
