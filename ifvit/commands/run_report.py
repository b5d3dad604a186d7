"""What rank 0 tells of a start of a training run: opening lines, how it ended, and its log in between."""

import getpass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from ifvit.commands.run_log import RunLog
from ifvit.commands.training_inputs import TrainingInputs
from ifvit.config.loading import leaves
from ifvit.config.schema import Recipe
from ifvit.model.attention_choice import AttentionChoice
from ifvit.model.flops import count_flops
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.environment import append_attempt, end_attempt, environment_record
from ifvit.runtime.metrics import MetricsLog
from ifvit.runtime.progress import Progress
from ifvit.runtime.run_directory import RunDirectory
from ifvit.runtime.standard_error import say
from ifvit.runtime.tracking import MlflowTracker, default_tracking_uri
from ifvit.training.state import TrainState


class RunReport:
    """Open while a run trains; on leaving it MLflow hears whether the run finished, failed or was stopped.

    Attributes:
        log: for what the run logs meanwhile.
    """

    def __init__(
        self,
        inputs: TrainingInputs,
        directory: RunDirectory,
        state: TrainState,
        ranks: Ranks,
        device: torch.device,
        attention: AttentionChoice,
    ) -> None:
        recipe, encoders = inputs.recipe, inputs.encoders
        self.directory = directory
        self.state = state
        counted = count_flops(recipe.model)
        environment = environment_record(
            str(device),
            ranks.world_size,
            attention.backend,
            {"autoencoder": encoders.autoencoder.identity, "text_encoder": encoders.text_encoder.identity},
            inputs.data.digest,
            encoders_notice=encoders.notice,
            first_step=state.step,
            attention=attention.record(),
            **counted,
        )
        self.attempt = append_attempt(directory.environment_file, environment)
        say(f"run {directory.path}, " + (f"resumed at step {state.step}" if state.step else "new"))
        say(
            f"{recipe.model.conditioning}, {recipe.model.fusion.schedule} fusion, {counted['parameters']:,} parameters"
            f", {recipe.train.precision}, ZeRO {recipe.runtime.zero_stage}, {ranks.world_size} rank(s) on {device.type}"
            f", attention: {attention.backend}"
        )
        for notice in filter(None, (*attention.notices, encoders.notice)):
            say(notice)
        metrics = MetricsLog(directory.metrics_file, directory.discarded_metrics_file, directory.writer)
        metrics.resume(state.step)
        self.tracker = make_tracker(recipe, directory, environment, self.attempt) if recipe.tracking.mlflow else None
        self.progress = Progress(recipe.train.max_steps, "training", unit="steps", initial=state.step)
        self.log = RunLog(metrics, self.progress, self.tracker)

    def __enter__(self) -> "RunReport":
        if self.tracker:
            self.tracker.start()
            self.tracker.log_artifact(self.directory.recipe_file)
            self.tracker.log_artifact(self.directory.environment_file)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.close()
        self.directory.writer.close()  # before MLflow is given its last rows
        is_failure = error_type is not None and issubclass(error_type, Exception)
        is_finished = error_type is None and self.state.stop_reason is None
        outcome = "failed" if is_failure else "finished" if is_finished else "interrupted"
        reason = self.state.stop_reason if error is None else f"{error or type(error).__name__}".splitlines()[0]
        try:
            end_attempt(self.directory.environment_file, outcome, reason)
        except (OSError, ValueError) as failure:  # the error that ended the run, a full disk say, is the one to be told
            say(f"{self.directory.environment_file}: how this start ended is not written: {failure}")
        finally:
            if self.tracker:  # last: it may not answer
                self.tracker.finish("FAILED" if is_failure else "FINISHED" if is_finished else "KILLED")
        if error_type is None:
            line = f"{self.directory.path}: step {self.state.step}, {self.state.samples_seen:,} samples seen"
            reason = self.state.stop_reason
            say(f"{line}; stopped by {reason} and saved, the same command goes on" if reason else line)


def make_tracker(recipe: Recipe, directory: RunDirectory, environment: dict[str, Any], attempt: int) -> MlflowTracker:
    runs_root = Path(recipe.runtime.runs_root)
    uri = recipe.tracking.mlflow_tracking_uri
    return MlflowTracker(
        uri or default_tracking_uri(runs_root),
        recipe.tracking.experiment,
        recipe.name,
        directory.mlflow_file,
        directory.metrics_file,
        params=dict(leaves(recipe.model_dump(mode="json"))),
        tags={
            "attempt": attempt,
            "conditioning": recipe.model.conditioning,
            "fusion": recipe.model.fusion.schedule,
            "git_commit": environment["git"]["commit"],
            "git_diff_sha256": environment["git"]["diff_sha256"],
            "device": environment["device"],
            "attention_backend": environment["attention_backend"],
            "world_size": environment["world_size"],
            "encoders": environment["encoders_notice"] or "trained",
            "mlflow.user": getpass.getuser(),
            "mlflow.source.name": "ifvit train",
        },
        artifact_root=None if uri else runs_root / "mlartifacts",
    )
