"""Takes a run back to its last good checkpoint and moves it past the batches that made its steps bad."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace

from ifvit.checkpoint.hook import CheckpointHook
from ifvit.checkpoint.load import newest_checkpoint
from ifvit.checkpoint.resume import restore_state, restore_weights
from ifvit.checkpoint.retention import remove_after
from ifvit.commands.run_report import RunReport
from ifvit.config.schema import BadStepsConfig
from ifvit.data.batch_stream import BatchStream
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.run_directory import RunDirectory
from ifvit.training.bad_steps import BadSteps, Verdict, rolled_back, skipped_batches_after
from ifvit.training.bad_steps_hook import BadStepsHook
from ifvit.training.ema import Ema
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.phases import ROLLBACK, Phases
from ifvit.training.state import Hook, NonFiniteError, StepResult, TrainState


class RollbackHook:
    """The last of the hooks: it changes `state`, engine and averages in place, and opens the data elsewhere.

    Args:
        counting: hooks that count from the state they start at; they start again.
    """

    def __init__(
        self,
        config: BadStepsConfig,
        directory: RunDirectory,
        engine: DeepSpeedEngine,
        ema: Ema,
        batches: BatchStream,
        bad_steps: BadStepsHook,
        saves: CheckpointHook,
        counting: Sequence[Hook],
        phases: Phases,
        ranks: Ranks,
        report: RunReport | None,
    ) -> None:
        self.config = config
        self.directory = directory
        self.engine = engine
        self.ema = ema
        self.batches = batches
        self.bad_steps = bad_steps
        self.saves = saves
        self.counting = counting
        self.phases = phases
        self.ranks = ranks
        self.report = report

    def on_start(self, state: TrainState) -> None:
        if self.is_demanded(state):  # by the last steps before the run was interrupted
            self.roll_back(state)

    def on_step(self, state: TrainState, result: StepResult) -> None:
        if self.is_demanded(state):
            self.roll_back(state)

    def on_stop(self, state: TrainState) -> None:
        """What is still demanded then is done by the next start."""

    def is_demanded(self, state: TrainState) -> bool:
        return state.stop_reason is None and BadSteps(self.config, state.bad_steps).verdict() is Verdict.ROLL_BACK

    def roll_back(self, state: TrainState) -> None:
        """Raises NonFiniteError where no checkpoint is there from before the bad steps. Collective."""
        self.phases.enter(ROLLBACK, state.step)
        self.saves.finish()
        checkpoint = newest_checkpoint(self.directory.checkpoints, self.ranks, from_good_steps=True)
        if checkpoint is None:
            raise NonFiniteError(
                f"{state.bad_steps.in_a_row} bad steps in a row, and no checkpoint from before them to go back to; "
                f"their sample ids are in {self.directory.bad_steps_file}"
            )
        before = replace(state)
        restore_weights(checkpoint, self.engine)
        restore_state(checkpoint, state, self.engine, self.ema)
        checkpoint.close()
        first_batch = state.next_batch
        state.skipped_batches = skipped_batches_after(before.bad_steps, state.step)
        state.bad_steps = rolled_back(before.bad_steps, state.bad_steps)
        self.bad_steps.forget()
        if self.ranks.rank == 0:
            remove_after(self.directory.checkpoints, state.step)
        if self.report:
            self.log(before, state, first_batch)
            self.report.rolled_back(f"batches {first_batch} to {before.bad_steps.last_batch} are left out")
        for hook in self.counting:
            hook.on_start(state)
        self.batches.go_on_at(state.next_batch)

    def log(self, before: TrainState, after: TrainState, first_batch: int) -> None:
        """A line of rollbacks.jsonl, with the samples of the steps that demanded the rollback."""
        lines = self.directory.writer.lines(self.directory.bad_steps_file)
        bad = [json.loads(line) for line in lines[-before.bad_steps.in_a_row :]]
        record = {
            "rollback": after.bad_steps.rollbacks,
            "from_step": before.step,
            "to_step": after.step,
            "time": time.time(),
            "first_skipped_batch": first_batch,
            "last_skipped_batch": before.bad_steps.last_batch,
            "bad_steps": [each["step"] for each in bad],
            "sample_ids": [each for step in bad for ids in step["sample_ids_by_rank"] for each in ids],
        }
        self.directory.writer.append(self.directory.rollbacks_file, record)
