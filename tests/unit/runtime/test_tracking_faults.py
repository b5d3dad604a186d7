"""Whatever happens to MLflow, training does not notice, and what can be made up for is."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from ifvit.runtime.mlflow_run import MlflowRun
from tests.unit.runtime.tracked_run import TrackedRun, wait_until

pytestmark = pytest.mark.usefixtures("quick_tracker")


def test_an_outage_is_said_once_and_made_up_for(
    run: TrackedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    down = threading.Event()
    send = MlflowRun.send_metrics

    def failing(self: MlflowRun, rows: Any) -> None:
        if down.is_set():
            raise ConnectionError("no route to host\nand more")
        send(self, rows)

    monkeypatch.setattr(MlflowRun, "send_metrics", failing)
    image = run.folder / "grid.png"
    Image.new("RGB", (8, 8)).save(image)
    tracker = run.tracker()
    tracker.start()
    run.append(0)
    wait_until(lambda: (run.folder / "mlflow.json").is_file() and len(run.history()) == 1)
    down.set()
    run.append(10, 20)
    tracker.log_image(image, 20)
    wait_until(lambda: tracker.said_failure)
    time.sleep(0.5)  # a few tries more
    down.clear()
    wait_until(lambda: not tracker.said_failure)
    tracker.finish()
    assert [step for step, _ in run.history()] == [0, 10, 20]
    assert run.client().list_artifacts(run.run_id, "images")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("MLflow (")]
    assert len(lines) == 2
    assert lines[0].endswith("has all metrics: no route to host")
    assert lines[1].endswith("answers again and has everything")


def test_rows_made_after_a_rollback_in_an_outage_are_sent_all_and_once(
    run: TrackedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have steps that MLflow knows from before the rollback."""
    down = threading.Event()
    send = MlflowRun.send_metrics

    def failing(self: MlflowRun, rows: Any) -> None:
        if down.is_set():
            raise ConnectionError("no route to host")
        send(self, rows)

    monkeypatch.setattr(MlflowRun, "send_metrics", failing)
    tracker = run.tracker()
    tracker.start()
    run.append(0, 10, 20, 30)
    wait_until(lambda: (run.folder / "mlflow.json").is_file() and len(run.history()) == 4)
    down.set()
    run.metrics.resume(10)
    tracker.rolled_back(10)
    run.append(20, 30, 40, rollbacks=1)
    wait_until(lambda: tracker.said_failure)
    down.clear()
    tracker.finish()
    assert run.steps() == [0, 10, 20, 20, 30, 30, 40]


def test_a_store_lost_during_the_run_gets_all_rows_again(run: TrackedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = run.tracker()
    tracker.start()
    run.append(0)
    wait_until(lambda: (run.folder / "mlflow.json").is_file() and len(run.history()) == 1)
    state = json.loads((run.folder / "mlflow.json").read_text())
    (run.folder / "mlflow.json").write_text(json.dumps({**state, "run_id": "0" * 32}))
    run.client().delete_run(state["run_id"])  # what is sent to it now fails
    run.append(10)
    wait_until(lambda: run.run_id not in (state["run_id"], "0" * 32))
    tracker.finish()
    assert [step for step, _ in run.history()] == [0, 10]


def test_an_artifact_that_is_refused_does_not_hold_up_the_rest(
    run: TrackedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = run.tracker()
    tracker.start()
    tracker.log_artifact(run.folder / "missing.png")
    later = run.folder / "later.txt"
    later.touch()
    tracker.log_artifact(later)
    run.append(0)
    wait_until(lambda: (run.folder / "mlflow.json").is_file() and run.client().list_artifacts(run.run_id))
    tracker.finish()
    assert len(run.history()) == 1
    assert f"artifact {run.folder / 'missing.png'} is not sent: " in capsys.readouterr().err


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_an_unreachable_server_costs_training_nothing(
    run: TrackedRun, kind: str, silent_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = "http://127.0.0.1:9" if kind == "refused" else silent_server
    tracker = run.tracker(uri)
    tracker.start()
    begin = time.monotonic()
    for step in range(100):
        run.append(step)
        tracker.log_artifact(run.metrics.path)
    assert time.monotonic() - begin < 1
    if kind == "refused":
        wait_until(lambda: tracker.said_failure)
    begin = time.monotonic()
    tracker.finish(timeout_seconds=1)
    assert time.monotonic() - begin < 3
    assert "MLflow (" in capsys.readouterr().err
    # The next start, with a store that answers, sends all of it.
    tracker = run.tracker()
    tracker.start()
    tracker.finish()
    assert [step for step, _ in run.history()] == list(range(100))


def test_a_full_queue_drops_and_says_so(run: TrackedRun, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = run.tracker(queue_size=1)  # not started: nobody takes anything out
    tracker.log_artifact(run.folder / "first.txt")
    tracker.log_artifact(run.folder / "second.txt")
    assert "second.txt is not sent: 1 others wait already" in capsys.readouterr().err
    tracker.finish()


def test_mlflow_that_cannot_be_imported_is_said_and_survived(
    run: TrackedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow.tracking", None)
    tracker = run.tracker()
    tracker.start()
    run.append(0)
    tracker.finish()
    assert f"cannot be imported, metrics go to {run.metrics.path} only" in capsys.readouterr().err
