"""MLflow sees each step once, whatever happens to it or to the run, and training does not notice."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ifvit.runtime import tracking
from ifvit.runtime.metrics import MetricsLog
from ifvit.runtime.mlflow_run import MlflowRun
from ifvit.runtime.tracking import MlflowTracker, default_tracking_uri

PARAMS = {"optimizer.learning_rate": 0.1, "train.max_steps": 10}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one sqlite store for all tests: making one takes seconds."""
    return tmp_path_factory.mktemp("läufe and spaces")


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(tracking, "FIRST_RETRY_SECONDS", 0.2)


class Run:
    """A training run's metrics and its tracker, as `ifvit train` has them."""

    def __init__(self, folder: Path, store: Path, experiment: str = "tests") -> None:
        self.folder = folder
        self.store = store
        self.experiment = experiment
        self.metrics = MetricsLog(folder / "metrics.jsonl", folder / "metrics.discarded.jsonl")

    def tracker(self, tracking_uri: str | None = None, **changes: Any) -> MlflowTracker:
        arguments: dict[str, Any] = {
            "experiment": self.experiment,
            "run_name": "small",
            "state_file": self.folder / "mlflow.json",
            "metrics_file": self.folder / "metrics.jsonl",
            "params": PARAMS,
            "tags": {"git_commit": "abc", "attempt": 1},
            "artifact_root": self.store / "mlartifacts",
        }
        return MlflowTracker(tracking_uri or default_tracking_uri(self.store), **{**arguments, **changes})

    def append(self, *steps: int) -> None:
        for step in steps:
            self.metrics.append({"step": step, "time": time.time(), "loss": 1 / (step + 1), "samples_per_second": 2})

    @property
    def run_id(self) -> str:
        return str(json.loads((self.folder / "mlflow.json").read_text())["run_id"])

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(default_tracking_uri(self.store))

    def stored(self) -> Any:
        return self.client().get_run(self.run_id)

    def history(self, key: str = "loss") -> list[tuple[int, float]]:
        return [(metric.step, metric.value) for metric in self.client().get_metric_history(self.run_id, key)]


@pytest.fixture
def run(tmp_path: Path, store: Path) -> Run:
    return Run(tmp_path, store)


def wait_until(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_system_metrics_are_sent_while_the_run_lasts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    tracker = run.tracker()
    tracker.start()
    run.append(0)
    wait_until(lambda: (run.folder / "mlflow.json").is_file() and run.history("system/cpu_utilization_percentage"))
    tracker.finish()


def test_a_run_arrives_whole(run: Run) -> None:
    image = run.folder / "grid.png"
    Image.new("RGB", (8, 8)).save(image)
    tracker = run.tracker()
    tracker.start()
    run.append(0, 10, 20)
    tracker.log_image(image, step=20)
    tracker.log_artifact(run.metrics.path)
    tracker.log_artifact(image, "grids")
    tracker.set_tags({"device": "cpu"})
    run.append(30)
    tracker.finish()
    stored = run.stored()
    assert run.history() == [(step, 1 / (step + 1)) for step in (0, 10, 20, 30)]
    assert run.history("samples_per_second") == [(step, 2.0) for step in (0, 10, 20, 30)]
    assert set(stored.data.metrics) == {"loss", "samples_per_second"}
    assert stored.data.params == {"optimizer.learning_rate": "0.1", "train.max_steps": "10"}
    assert {"git_commit": "abc", "attempt": "1", "device": "cpu"}.items() <= stored.data.tags.items()
    assert (stored.info.status, stored.info.run_name) == ("FINISHED", "small")
    client = run.client()
    assert {entry.path for entry in client.list_artifacts(run.run_id)} == {"grids", "images", "metrics.jsonl"}
    assert client.list_artifacts(run.run_id, "images")
    assert list((run.store / "mlartifacts").iterdir())


def test_rows_arrive_while_the_run_goes_on(run: Run) -> None:
    tracker = run.tracker()
    tracker.start()
    run.append(0)
    wait_until(lambda: (run.folder / "mlflow.json").is_file() and run.history() == [(0, 1.0)])
    assert run.stored().info.status == "RUNNING"
    run.append(10)
    wait_until(lambda: len(run.history()) == 2)
    tracker.finish("KILLED")
    assert run.stored().info.status == "KILLED"


def test_a_resumed_run_is_the_same_mlflow_run_with_each_step_once(run: Run) -> None:
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


def test_rows_that_a_killed_process_did_not_send_are_sent_by_the_next(run: Run) -> None:
    first = run.tracker()
    first.start()
    run.append(0)
    first.finish("KILLED")
    run.append(10, 20)
    second = run.tracker()
    second.start()
    second.finish()
    assert [step for step, _ in run.history()] == [0, 10, 20]


def test_an_image_of_a_repeated_step_is_there_once(run: Run) -> None:
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


def test_many_rows_travel_in_requests_of_whole_rows(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ifvit.runtime.mlflow_run.METRICS_PER_REQUEST", 5)
    run.append(*range(20))
    tracker = run.tracker()
    tracker.start()
    tracker.finish()
    assert [step for step, _ in run.history()] == [step for step, _ in run.history("samples_per_second")]
    assert [step for step, _ in run.history()] == list(range(20))


def test_a_run_that_the_store_has_lost_is_made_anew_with_all_rows(run: Run) -> None:
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


def test_an_outage_is_said_once_and_made_up_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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


def test_a_store_lost_during_the_run_gets_all_rows_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_an_artifact_that_is_refused_does_not_hold_up_the_rest(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = run.tracker()
    tracker.start()
    tracker.log_artifact(run.folder / "missing.png")
    tracker.set_tags({"later": "yes"})
    run.append(0)
    wait_until(lambda: (run.folder / "mlflow.json").is_file() and "later" in run.stored().data.tags)
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
    run: Run, kind: str, silent_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = "http://127.0.0.1:9" if kind == "refused" else silent_server
    tracker = run.tracker(uri)
    tracker.start()
    begin = time.monotonic()
    for step in range(100):
        run.append(step)
        tracker.log_artifact(run.metrics.path)
        tracker.set_tags({"step": step})
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


def test_a_full_queue_drops_and_says_so(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = run.tracker(queue_size=1)  # not started: nobody takes anything out
    tracker.set_tags({"first": 1})
    tracker.set_tags({"second": 2})
    assert "tags is not sent: 1 others wait already" in capsys.readouterr().err
    tracker.finish()


def test_mlflow_that_cannot_be_imported_is_said_and_survived(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow.tracking", None)
    tracker = run.tracker()
    tracker.start()
    run.append(0)
    tracker.finish()
    assert f"cannot be imported, metrics go to {run.metrics.path} only" in capsys.readouterr().err
