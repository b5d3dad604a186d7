"""What rank 0 logs of a run while it trains: metrics.jsonl, MLflow's view of it, the progress display."""

from dataclasses import dataclass
from pathlib import Path

from ifvit.runtime.metrics import MetricsLog
from ifvit.runtime.progress import Progress
from ifvit.runtime.tracking import MlflowTracker


@dataclass(frozen=True)
class RunLog:
    """Only rank 0 has one."""

    metrics: MetricsLog
    progress: Progress
    tracker: MlflowTracker | None = None

    def rolled_back(self, step: int, line: str) -> None:
        """The run is at `step` again: what was logged since is set aside, and `line` says so."""
        self.metrics.resume(step)
        if self.tracker:
            self.tracker.rolled_back(step)
        self.progress.go_back(step)
        self.progress.write(line)

    def grid_written(self, path: Path, step: int) -> None:
        """A sample grid is there: show it in MLflow, say where it lies."""
        if self.tracker:
            self.tracker.log_image(path, step)
        self.progress.write(f"samples at step {step}: {path}")
