"""One MLflow run, spoken to synchronously. Any method may raise whatever MLflow raises; tracking.py deals with that."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ifvit.runtime.files import write_atomically

MARK_METRIC = "rollbacks"  # in every row of metrics.jsonl: its history says which rows MLflow has
METRICS_PER_REQUEST, PARAMS_PER_REQUEST = 1000, 100  # MLflow's own limits


class MlflowRun:
    """Created at the first `connect` ever, found again by `state_file` at every later one."""

    def __init__(
        self, tracking_uri: str, experiment: str, run_name: str, state_file: Path, artifact_root: Path | None
    ) -> None:
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self.run_name = run_name
        self.state_file = state_file
        self.artifact_root = artifact_root
        self.client: Any = None
        self.monitor: Any = None
        self.run_id = ""
        self.rows_there: set[tuple[int, int]] = set()  # by rollbacks and step: those that MLflow has
        self.last_image_step = -1

    @property
    def connected(self) -> bool:
        return self.client is not None

    def connect(self, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Find or create the run and bring its params and tags up to date."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self.tracking_uri)
        run = self.stored_run(client)
        if run is None:
            run = client.create_run(self.experiment_id(client), run_name=self.run_name)
            self.run_id, self.last_image_step = run.info.run_id, -1
            self.write_state()
        else:
            client.update_run(self.run_id, status="RUNNING")
        history = client.get_metric_history(self.run_id, MARK_METRIC)
        self.rows_there = {(int(metric.value), metric.step) for metric in history}
        send_params(client, self.run_id, run.data.params, params)
        for key, value in tags.items():
            client.set_tag(self.run_id, key, value)
        self.monitor = SystemMetricsMonitor(self.run_id, resume_logging=True, tracking_uri=self.tracking_uri)
        self.monitor.start()
        self.client = client

    def disconnect(self) -> None:
        """Forget the connection; `connect` makes a new one."""
        monitor, self.monitor, self.client = self.monitor, None, None
        if monitor is not None:
            monitor.finish()

    def end(self, status: str) -> None:
        client = self.client
        self.disconnect()
        client.set_terminated(self.run_id, status)

    def send_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Send the rows that MLflow does not have: a resumed run repeats steps, with equal values. After a rollback the
        same steps have other values."""
        pending: list[Any] = []
        for row in rows:
            if (key := (row[MARK_METRIC], row["step"])) in self.rows_there:
                continue
            self.rows_there.add(key)  # where sending it fails, the next connection finds out
            metrics = row_metrics(row)
            # A row is never split over two requests: MARK_METRIC must not be there without the rest.
            if len(pending) + len(metrics) > METRICS_PER_REQUEST:
                self.client.log_batch(self.run_id, metrics=pending)
                pending = []
            pending += metrics
        if pending:
            self.client.log_batch(self.run_id, metrics=pending)

    def send_artifact(self, path: Path, folder: str | None) -> None:
        self.client.log_artifact(self.run_id, str(path), folder)

    def send_image(self, path: Path, step: int) -> None:
        if step <= self.last_image_step:
            return  # made again by a resumed run, the same pixels
        from PIL import Image

        with Image.open(path) as image:
            self.client.log_image(self.run_id, image.convert("RGB"), key="samples", step=step)
        self.last_image_step = step
        self.write_state()

    def take_back_images(self, last_step: int) -> None:
        """Those after `last_step` will be made again, with other pixels."""
        self.last_image_step = min(self.last_image_step, last_step)
        self.write_state()

    def stored_run(self, client: Any) -> Any:
        """The run that `state_file` names, or None if there is none, or none in this store and experiment."""
        from mlflow.exceptions import MlflowException

        if not self.state_file.is_file():
            return None
        state = json.loads(self.state_file.read_bytes())
        if (state["tracking_uri"], state["experiment"]) != (self.tracking_uri, self.experiment):
            return None
        try:
            run = client.get_run(state["run_id"])
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None  # the store was emptied; the new run gets all rows
            raise
        self.run_id, self.last_image_step = state["run_id"], state["last_image_step"]
        return run

    def write_state(self) -> None:
        state = {
            "tracking_uri": self.tracking_uri,
            "experiment": self.experiment,
            "run_id": self.run_id,
            "last_image_step": self.last_image_step,
        }
        write_atomically(self.state_file, (json.dumps(state, indent=2) + "\n").encode())

    def experiment_id(self, client: Any) -> str:
        from mlflow.exceptions import MlflowException

        if (known := client.get_experiment_by_name(self.experiment)) is not None:
            return str(known.experiment_id)
        location = self.artifact_root.resolve().as_uri() if self.artifact_root else None
        try:
            return str(client.create_experiment(self.experiment, artifact_location=location))
        except MlflowException:
            # Another run created it in between.
            if (known := client.get_experiment_by_name(self.experiment)) is None:
                raise
            return str(known.experiment_id)


def send_params(client: Any, run_id: str, there: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """MLflow refuses to change a param: a later start's other value (more steps, say) becomes a tag."""
    from mlflow.entities import Param

    new = [Param(key, value) for key, value in wanted.items() if key not in there]
    for start in range(0, len(new), PARAMS_PER_REQUEST):
        client.log_batch(run_id, params=new[start : start + PARAMS_PER_REQUEST])
    for key, value in wanted.items():
        if there.get(key, value) != value:
            client.set_tag(run_id, f"changed.{key}", value)


def row_metrics(row: Mapping[str, Any]) -> Sequence[Any]:
    """The numbers of a row as MLflow metrics; `time` (Unix seconds), where it is there, is when they were measured."""
    from mlflow.entities import Metric

    milliseconds = int(1000 * row.get("time", time.time()))
    return [
        Metric(key, float(value), milliseconds, row["step"])
        for key, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and key not in ("step", "time")
    ]
