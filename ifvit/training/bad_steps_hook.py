"""Learns, a step late, which steps were skipped; says so, counts them, and ends training when there are too many."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch.distributed as dist
from torch import Tensor

from ifvit.config.schema import BadStepsConfig
from ifvit.runtime.agreement import gathered
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.run_writer import RunWriter
from ifvit.runtime.standard_error import say
from ifvit.training.bad_steps import BadSteps, KnownStep, Verdict
from ifvit.training.delayed_values import DelayedValues
from ifvit.training.state import NonFiniteError, StepResult, TrainState


@dataclass(frozen=True)
class MadeStep:
    """What identifies a step whose numbers are not known yet."""

    step: int
    batch: int
    sample_ids: Tensor  # (R,) int64, of this rank


class BadStepsHook:
    """Keeps `state.bad_steps` up to date: what a rank knows of step s is known before the update of step s + 1.

    Nothing waits for the device, and nothing is reduced over the ranks unless spikes are watched for: whether a step
    was skipped is the same on all of them.

    Args:
        log_file: gets a line per skipped step, from rank 0, by the `writer`.
    """

    def __init__(self, config: BadStepsConfig, ranks: Ranks, log_file: Path, writer: RunWriter) -> None:
        self.config = config
        self.ranks = ranks
        self.log_file = log_file
        self.writer = writer
        self.delayed: DelayedValues[MadeStep] = DelayedValues()
        self.mean_loss: Tensor | None = None  # of the step that is being made, where spikes are watched for
        self.reason = ""  # of the last skipped step of this process

    def on_start(self, state: TrainState) -> None:
        self.stop_where_demanded(state)

    def must_skip(self, state: TrainState, loss: Tensor) -> Tensor | None:
        """Whether the step with this `loss`, a scalar over this rank's rows, is a spike or not finite: a scalar bool,
        the same on all ranks; None where spikes are not watched for. To be called when the backward pass is queued on
        the device."""
        self.learn(state)
        window = BadSteps(self.config, state.bad_steps).window
        if window is None:
            return None
        self.mean_loss = loss.detach() / self.ranks.world_size
        if self.ranks.world_size > 1:
            dist.all_reduce(self.mean_loss)  # every rank has equally many rows, so the mean of means is the mean
        return ~(self.mean_loss.isfinite() & (self.mean_loss <= window.limit()))

    def on_step(self, state: TrainState, result: StepResult) -> None:
        self.stop_where_demanded(state)
        mean_loss = result.loss if self.mean_loss is None else self.mean_loss
        made = MadeStep(state.step, state.next_batch - 1, result.sample_ids)
        self.delayed.put(made, [result.loss, mean_loss, result.grad_norm, result.is_skipped])

    def on_stop(self, state: TrainState) -> None:
        self.learn(state)

    def settle(self, state: TrainState) -> bool:
        """Wait for the newest step, before a state is saved; whether it was a good one. Collective.

        Raises NonFiniteError when it was the last bad one that is allowed.
        """
        self.learn(state)
        self.stop_where_demanded(state)
        return state.bad_steps.in_a_row == 0

    def forget(self) -> None:
        """The step that is not known yet was taken back."""
        self.delayed.drop()

    def learn(self, state: TrainState) -> None:
        """Take in the newest step, if it is not known yet."""
        taken = self.delayed.take()
        if taken is None:
            return
        made, (own_loss, mean_loss, grad_norm, is_skipped) = taken
        known = KnownStep(made.step, made.batch, mean_loss, grad_norm, bool(is_skipped))
        bad_steps = BadSteps(self.config, state.bad_steps)
        if known.is_skipped and bad_steps.verdict() is Verdict.GO_ON:
            self.report(known, own_loss, made.sample_ids, bad_steps)
        bad_steps.add(known)

    def report(self, known: KnownStep, own_loss: float, sample_ids: Tensor, bad_steps: BadSteps) -> None:
        """Log the skipped step with every rank's loss and sample ids. Collective."""
        losses, ids = zip(*gathered(self.ranks, (own_loss, sample_ids.tolist())), strict=True)
        loss = sum(losses) / self.ranks.world_size
        self.reason = bad_steps.reason(replace(known, loss=loss))
        if self.ranks.rank == 0:
            record = {
                "step": known.step,
                "batch": known.batch,
                "time": time.time(),
                "reason": self.reason,
                "loss": loss,
                "grad_norm": known.grad_norm,
                "loss_by_rank": losses,
                "sample_ids_by_rank": ids,
            }
            self.writer.append(self.log_file, record)
            line = f"step {known.step} is skipped: {self.reason}; its sample ids are in {self.log_file}"
            say(line)

    def stop_where_demanded(self, state: TrainState) -> None:
        """Raises NonFiniteError on all ranks where too many steps in a row were bad and no rollback is left."""
        record = state.bad_steps
        if BadSteps(self.config, record).verdict() is not Verdict.STOP:
            return
        assert record.last_batch is not None
        last_step = record.last_batch + 1 - state.skipped_batches
        raise NonFiniteError(
            f"{record.in_a_row} bad steps in a row, up to step {last_step}"
            + (f", where {self.reason}" if self.reason else "")
            + f"; no rollback is left (train.bad_steps.max_rollbacks = {self.config.max_rollbacks}); their sample ids "
            f"are in {self.log_file}"
        )
