"""Takes a run back to its last good checkpoint and moves it past the batches that made its steps bad."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace

from ifvit.checkpoint.hook import CheckpointHook
from ifvit.checkpoint.load import newest_checkpoint
from ifvit.checkpoint.resume import restore_state, restore_weights
from ifvit.checkpoint.retention import remove_after
from ifvit.commands.run_parts import RunParts
from ifvit.config.schema import BadStepsConfig
from ifvit.training.bad_steps import BadSteps, Verdict, rolled_back, skipped_batches_after
from ifvit.training.phases import ROLLBACK
from ifvit.training.state import Hook, NonFiniteError, StepResult, TrainState


def is_rollback_due(config: BadStepsConfig, state: TrainState) -> bool:
    """Whether the bad steps known so far demand a rollback."""
    return BadSteps(config, state.bad_steps).verdict() is Verdict.ROLL_BACK


class RollbackHook:
    """The last of the hooks: it changes `state`, engine and averages in place, and opens the data elsewhere.

    Args:
        counting: hooks that count from the state they start at; they start again.
    """

    def __init__(self, parts: RunParts, saves: CheckpointHook, counting: Sequence[Hook]) -> None:
        self.parts = parts
        self.config = parts.recipe.train.bad_steps
        self.saves = saves
        self.counting = counting

    def on_start(self, state: TrainState) -> None:
        self.roll_back_where_due(state)  # by the last steps before the run was interrupted

    def on_step(self, state: TrainState, result: StepResult) -> None:
        if state.step == self.parts.recipe.train.max_steps:
            self.parts.bad_steps.settle(state)  # no step follows in which it would become known
        self.roll_back_where_due(state)

    def on_stop(self, state: TrainState) -> None:
        """What is due when the run is interrupted is done by the next start."""

    def roll_back_where_due(self, state: TrainState) -> None:
        if state.stop_reason is None and is_rollback_due(self.config, state):
            self.roll_back(state)

    def roll_back(self, state: TrainState) -> None:
        """Raises NonFiniteError where no checkpoint is there from before the bad steps. Collective."""
        parts, directory = self.parts, self.parts.directory
        # Not the state's step: at a start none was made yet, and the next may take as long as a first one may.
        parts.phases.enter(ROLLBACK, parts.phases.position.step)
        self.saves.finish()
        checkpoint = newest_checkpoint(directory.checkpoints, parts.ranks, from_good_steps=True)
        if checkpoint is None:
            raise NonFiniteError(
                f"{state.bad_steps.in_a_row} bad steps in a row, and no checkpoint from before them to go back to; "
                f"their sample ids are in {directory.bad_steps_file}"
            )
        before = replace(state)
        restore_weights(checkpoint, parts.engine)
        restore_state(checkpoint, state, parts.engine, parts.ema)
        checkpoint.close()
        first_batch = state.next_batch
        state.skipped_batches = skipped_batches_after(before.bad_steps, state.step)
        state.bad_steps = rolled_back(before.bad_steps, state.bad_steps)
        parts.bad_steps.forget()
        if parts.ranks.rank == 0:
            remove_after(directory.checkpoints, state.step)
            self.record(before, state, first_batch)
        if parts.log:
            parts.log.rolled_back(
                state.step,
                f"rolled back to step {state.step} (rollback {state.bad_steps.rollbacks} of at most "
                f"{self.config.max_rollbacks}): batches {first_batch} to {before.bad_steps.last_batch} are left out",
            )
        for hook in self.counting:
            hook.on_start(state)
        parts.batches.go_on_at(state.next_batch)

    def record(self, before: TrainState, after: TrainState, first_batch: int) -> None:
        """A line of rollbacks.jsonl, with the samples of the steps that demanded the rollback."""
        directory = self.parts.directory
        lines = directory.writer.lines(directory.bad_steps_file)
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
        directory.writer.append(directory.rollbacks_file, record)
