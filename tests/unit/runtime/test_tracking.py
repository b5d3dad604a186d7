"""MLflow has each row, image and tag of a run once, also of one that was killed and resumed."""

import json
import math

import pytest
from PIL import Image

from tests.unit.runtime.tracked_run import PARAMS, TrackedRun, wait_until

pytestmark = pytest.mark.usefixtures("quick_tracker")


def test_system_metrics_are_sent_while_the_run_lasts(run: TrackedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    tracker = run.tracker()
    tracker.start()
    run.append(0)
    wait_until(lambda: (run.folder / "mlflow.json").is_file() and run.history("system/cpu_utilization_percentage"))
    tracker.finish()


def test_a_run_arrives_whole(run: TrackedRun) -> None:
    image = run.folder / "grid.png"
    Image.new("RGB", (8, 8)).save(image)
    tracker = run.tracker()
    tracker.start()
    run.append(0, 10, 20)
    tracker.log_image(image, step=20)
    tracker.log_artifact(run.metrics.path)
    tracker.log_artifact(image, "grids")
    run.append(30)
    tracker.finish()
    stored = run.stored()
    assert run.history() == [(step, 1 / (step + 1)) for step in (0, 10, 20, 30)]
    assert run.history("samples_per_second") == [(step, 2.0) for step in (0, 10, 20, 30)]
    assert set(stored.data.metrics) == {"loss", "samples_per_second", "rollbacks"}
    assert stored.data.params == {"optimizer.learning_rate": "0.1", "train.max_steps": "10"}
    assert {"git_commit": "abc", "attempt": "1"}.items() <= stored.data.tags.items()
    assert (stored.info.status, stored.info.run_name) == ("FINISHED", "small")
    client = run.client()
    assert {entry.path for entry in client.list_artifacts(run.run_id)} == {"grids", "images", "metrics.jsonl"}
    assert client.list_artifacts(run.run_id, "images")
    assert list((run.store / "mlartifacts").iterdir())


def test_rows_arrive_while_the_run_goes_on(run: TrackedRun) -> None:
    tracker = run.tracker()
    tracker.start()
    run.append(0)
    wait_until(lambda: (run.folder / "mlflow.json").is_file() and run.history() == [(0, 1.0)])
    assert run.stored().info.status == "RUNNING"
    run.append(10)
    wait_until(lambda: len(run.history()) == 2)
    tracker.finish("KILLED")
    assert run.stored().info.status == "KILLED"


def test_a_resumed_run_is_the_same_mlflow_run_with_each_step_once(run: TrackedRun) -> None:
    first = run.tracker()
    first.start()
    run.append(0, 10, 20, 30)
    first.finish("KILLED")
    run_id = run.run_id
    run.append(40)  # written, and the process killed before MLflow had it
    run.metrics.resume(20)  # the newest checkpoint; 30 and 40 are done anew
    second = run.tracker(params={**PARAMS, "train.max_steps": 60, "ema.decays": [0.99]}, tags={"attempt": 2})
    second.start()
    run.append(30, 40, 50)
    wait_until(lambda: len(run.history()) == 6)
    assert run.stored().info.status == "RUNNING"
    second.finish()
    assert run.run_id == run_id
    assert run.history() == [(step, 1 / (step + 1)) for step in (0, 10, 20, 30, 40, 50)]
    stored = run.stored()
    assert stored.info.status == "FINISHED"
    assert stored.data.params == {
        "optimizer.learning_rate": "0.1",
        "train.max_steps": "10",
        "ema.decays": "[0.99]",
    }
    assert stored.data.tags["changed.train.max_steps"] == "60"
    assert stored.data.tags["attempt"] == "2"


def test_rows_after_a_rollback_are_sent_also_where_the_file_was_longer_before(run: TrackedRun) -> None:
    tracker = run.tracker()
    tracker.start()
    run.append(0, 10, 20, 30)
    wait_until(lambda: (run.folder / "mlflow.json").is_file() and len(run.history()) == 4)
    run.metrics.resume(10)
    tracker.rolled_back(10)
    run.append(20, 30, 40, rollbacks=1)
    tracker.finish()
    assert run.steps() == [0, 10, 20, 20, 30, 30, 40]


def test_a_rollback_to_before_this_start_and_the_start_after_it_lose_no_row_and_repeat_none(run: TrackedRun) -> None:
    first = run.tracker()
    first.start()
    run.append(0, 10, 20, 30)
    first.finish("KILLED")
    second = run.tracker()
    second.start()
    wait_until(lambda: second.run.connected)
    run.metrics.resume(10)
    second.rolled_back(10)
    run.append(20, 30, 40, rollbacks=1)
    second.finish("KILLED")
    assert run.steps() == [0, 10, 20, 20, 30, 30, 40]
    run.metrics.resume(10)  # no checkpoint was saved since the rollback, so the run knows nothing of it
    run.append(20, 30, 40, 50)
    third = run.tracker()
    third.start()
    third.finish()
    assert run.steps() == [0, 10, 20, 20, 30, 30, 40, 40, 50]


def test_a_number_that_was_not_finite_is_left_out_of_its_row(run: TrackedRun) -> None:
    tracker = run.tracker()
    tracker.start()
    run.append(0)
    run.append(10, loss=math.nan)
    tracker.finish()
    assert run.steps() == [0]
    assert [step for step, _ in run.history("samples_per_second")] == [0, 10]


def test_a_rollback_before_the_first_logged_step_is_no_error(run: TrackedRun) -> None:
    tracker = run.tracker()
    run.metrics.resume(5)
    tracker.rolled_back(5)
    assert tracker.cut_at.get_nowait() == 0


def test_rows_that_a_killed_process_did_not_send_are_sent_by_the_next(run: TrackedRun) -> None:
    first = run.tracker()
    first.start()
    run.append(0)
    first.finish("KILLED")
    run.append(10, 20)
    second = run.tracker()
    second.start()
    second.finish()
    assert [step for step, _ in run.history()] == [0, 10, 20]


def test_an_image_of_a_repeated_step_is_there_once(run: TrackedRun) -> None:
    image = run.folder / "grid.png"
    Image.new("RGB", (8, 8)).save(image)
    counts = []
    for steps in ((100,), (100, 200)):
        tracker = run.tracker()
        tracker.start()
        for step in steps:
            tracker.log_image(image, step)
        tracker.finish()
        counts.append(len(run.client().list_artifacts(run.run_id, "images")))
    assert counts[1] == 2 * counts[0]


def test_an_image_that_a_rollback_took_back_is_followed_by_the_new_one(run: TrackedRun) -> None:
    image = run.folder / "grid.png"
    Image.new("RGB", (8, 8)).save(image)
    tracker = run.tracker()
    tracker.start()
    tracker.log_image(image, 20)
    wait_until(lambda: (run.folder / "mlflow.json").is_file() and run.images())
    count = len(run.images())
    tracker.rolled_back(10)
    tracker.log_image(image, 20)
    tracker.finish()
    assert len(run.images()) == 2 * count


def test_many_rows_travel_in_requests_of_whole_rows(run: TrackedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ifvit.runtime.mlflow_run.METRICS_PER_REQUEST", 5)
    run.append(*range(20))
    tracker = run.tracker()
    tracker.start()
    tracker.finish()
    assert [step for step, _ in run.history()] == [step for step, _ in run.history("samples_per_second")]
    assert [step for step, _ in run.history()] == list(range(20))


def test_a_run_that_the_store_has_lost_is_made_anew_with_all_rows(run: TrackedRun) -> None:
    run.append(0, 10)
    tracker = run.tracker()
    tracker.start()
    tracker.finish()
    state = json.loads((run.folder / "mlflow.json").read_text())
    (run.folder / "mlflow.json").write_text(json.dumps({**state, "run_id": "0" * 32}))
    tracker = run.tracker()
    tracker.start()
    tracker.finish()
    assert run.run_id not in (state["run_id"], "0" * 32)
    assert [step for step, _ in run.history()] == [0, 10]
