"""What the tests of tracking start from: a run's metrics, its tracker, and what the MLflow store has of it."""

import json
import time
from pathlib import Path
from typing import Any

from ifvit.runtime.metrics import MetricsLog
from ifvit.runtime.run_writer import RunWriter
from ifvit.runtime.tracking import MlflowTracker, default_tracking_uri

PARAMS = {"optimizer.learning_rate": 0.1, "train.max_steps": 10}


class TrackedRun:
    """A training run's metrics and its tracker, as `ifvit train` has them."""

    def __init__(self, folder: Path, store: Path, experiment: str = "tests") -> None:
        self.folder = folder
        self.store = store
        self.experiment = experiment
        self.metrics = MetricsLog(folder / "metrics.jsonl", folder / "metrics.discarded.jsonl", RunWriter(folder))

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

    def append(self, *steps: int, rollbacks: int = 0, loss: float | None = None) -> None:
        """Rows of `steps`; the loss falls with them unless one is given."""
        for step in steps:
            row = {"step": step, "time": time.time(), "loss": 1 / (step + 1) if loss is None else loss}
            self.metrics.append(row | {"samples_per_second": 2, "rollbacks": rollbacks})

    @property
    def run_id(self) -> str:
        return str(json.loads((self.folder / "mlflow.json").read_text())["run_id"])

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(default_tracking_uri(self.store))

    def stored(self) -> Any:
        return self.client().get_run(self.run_id)

    def steps(self) -> list[int]:
        """Those of which MLflow has a loss, sorted."""
        return sorted(step for step, _ in self.history())

    def images(self) -> list[Any]:
        return list(self.client().list_artifacts(self.run_id, "images"))

    def history(self, key: str = "loss") -> list[tuple[int, float]]:
        return [(metric.step, metric.value) for metric in self.client().get_metric_history(self.run_id, key)]


def wait_until(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
