"""MLflow's view of a run: a thread of its own follows metrics.jsonl and sends what MLflow does not have yet.

Training never waits for MLflow and never fails with it. Nothing is lost in an outage, because the metrics' source is
the file: whenever MLflow answers again, also in a later start of the run, the missing rows are sent. One training run
is one MLflow run across restarts; its id is in the run's mlflow.json.
"""

import os
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifvit.runtime.metrics import read_metrics
from ifvit.runtime.mlflow_run import MlflowRun
from ifvit.runtime.standard_error import say

POLL_SECONDS = 2.0  # how far MLflow may be behind the file; rows of one poll travel in one request
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 5.0, 300.0
TRIES_PER_JOB = 3  # each on a working connection: what MLflow then still refuses must not hold up the rest


@dataclass
class Job:
    """Something other than metrics to send."""

    what: str
    send: Callable[[MlflowRun], None]
    tries: int = 0


class MlflowTracker:
    """Sends to MLflow the rows of `metrics_file` and the artifacts given to it. Only rank 0 may have one."""

    def __init__(
        self,
        tracking_uri: str,
        experiment: str,
        run_name: str,
        state_file: Path,
        metrics_file: Path,
        params: Mapping[str, Any],
        tags: Mapping[str, Any],
        artifact_root: Path | None = None,
        queue_size: int = 1000,
    ) -> None:
        """`state_file` keeps the MLflow run's id; `params` are the recipe's dotted fields.

        `artifact_root` is where a new experiment's artifacts go; None leaves it to the server.
        """
        self.run = MlflowRun(tracking_uri, experiment, run_name, state_file, artifact_root)
        self.metrics_file = metrics_file
        self.params = {key: str(value) for key, value in params.items()}
        self.tags = {key: str(value) for key, value in tags.items()}
        self.jobs: queue.Queue[Job] = queue.Queue(maxsize=queue_size)
        self.unsent: Job | None = None  # failed, to be tried again
        self.ending: str | None = None  # the status to finish with
        self.woken = threading.Event()
        self.thread = threading.Thread(target=self.work, name="mlflow", daemon=True)
        self.said_failure = False
        self.position = 0  # bytes of metrics_file that MLflow has
        self.cut_at: queue.SimpleQueue[int] = queue.SimpleQueue()

    def start(self) -> None:
        """Begin in the background. Call it after MetricsLog.resume, which rewrites the file."""
        set_mlflow_environment()
        try:
            # Here and not in the thread: two threads that import large packages at once can see half of one.
            import mlflow.tracking  # noqa: F401
        except Exception as error:
            self.tell(f"cannot be imported, metrics go to {self.metrics_file} only: {first_line(error)}")
            return
        self.thread.start()

    def rolled_back(self, step: int) -> None:
        """To be called after a MetricsLog.resume of `step` while this follows the file. MLflow keeps the rows and
        images that were taken back, and gets those made in their place beside them, at the same steps."""
        is_there = self.metrics_file.is_file()  # not before the first logged step
        self.cut_at.put(self.metrics_file.stat().st_size if is_there else 0)
        self.put(f"the rollback to step {step}", lambda run: run.take_back_images(step))

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Send the file `path` into `folder` of the run's artifacts."""
        self.put(f"artifact {path}", lambda run: run.send_artifact(path, folder))

    def log_image(self, path: Path, step: int) -> None:
        """Send the image `path` as the sample grid of `step`; MLflow shows them along a slider."""
        self.put(f"image {path}", lambda run: run.send_image(path, step))

    def finish(self, status: str = "FINISHED", timeout_seconds: float = 60.0) -> None:
        """Send the rest and end the MLflow run as FINISHED, FAILED or KILLED; waits at most `timeout_seconds`."""
        self.ending = status
        self.woken.set()
        if self.thread.is_alive():
            self.thread.join(timeout_seconds)
            if self.thread.is_alive():
                self.tell(
                    f"did not take everything within {timeout_seconds:g} s; the next start of this run sends the rest"
                )

    def put(self, what: str, send: Callable[[MlflowRun], None]) -> None:
        try:
            self.jobs.put_nowait(Job(what, send))
        except queue.Full:
            self.tell(f"{what} is not sent: {self.jobs.maxsize} others wait already")

    # From here on: the thread.

    def work(self) -> None:
        retry_seconds = FIRST_RETRY_SECONDS
        while True:
            ending = self.ending  # read before sending, so that what came before it is sent
            try:
                self.send_everything()
                if ending is not None:
                    self.run.end(ending)
                    return
                self.woken.wait(POLL_SECONDS)
                retry_seconds = FIRST_RETRY_SECONDS
            except Exception as error:
                self.run.disconnect()
                if not self.said_failure:
                    self.said_failure = True
                    self.tell(f"failed, training goes on and {self.metrics_file} has all metrics: {first_line(error)}")
                if ending is not None:
                    return
                self.woken.wait(retry_seconds)
                retry_seconds = min(2 * retry_seconds, LAST_RETRY_SECONDS)

    def send_everything(self) -> None:
        if not self.run.connected:
            self.run.connect(self.params, self.tags)
            self.position = 0  # from the start of the file: what MLflow has is known by its steps
        while not self.cut_at.empty():
            self.position = min(self.position, self.cut_at.get())
        rows, position = read_metrics(self.metrics_file, self.position)
        self.run.send_metrics(rows)
        self.position = position
        while self.unsent is not None or not self.jobs.empty():
            self.send_job(self.unsent or self.jobs.get_nowait())
        if self.said_failure:
            self.said_failure = False
            self.tell("answers again and has everything")

    def send_job(self, job: Job) -> None:
        self.unsent = job
        job.tries += 1
        try:
            job.send(self.run)
        except Exception as error:
            if job.tries < TRIES_PER_JOB:
                raise
            self.tell(f"{job.what} is not sent: {first_line(error)}")
        self.unsent = None

    def tell(self, what: str) -> None:
        say(f"MLflow ({self.run.tracking_uri}) {what}")


def default_tracking_uri(runs_root: Path) -> str:
    """The sqlite store beside the runs."""
    return f"sqlite:///{runs_root.resolve() / 'mlflow.db'}"


def set_mlflow_environment() -> None:
    """Nothing is reported to MLflow's makers, no job server is started, its own log stays quiet, and it gives up on a
    server within a minute: the thread here tries again, and in the end `finish` waits no longer than that."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "10",
    }.items():
        os.environ.setdefault(name, value)


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
