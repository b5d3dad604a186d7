"""Loss, learning rate, gradient norm and speed: to metrics.jsonl, and to the progress display."""

import math
import time

import torch
import torch.distributed as dist

from ifvit.config.schema import Recipe
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.metrics import MetricsLog
from ifvit.runtime.progress import Progress
from ifvit.training.state import NonFiniteError, StepResult, TrainState

FORWARD_AND_BACKWARD = 3  # a training step costs three forward passes


class MetricsHook:
    """Logs every `tracking.log_every_steps` steps and at the end. Only there a step waits for the device.

    samples_per_second is wall clock since the last logged step, checkpoints and grids in between included.

    Args:
        log: on rank 0, else None.
        progress: on rank 0, else None.
        forward_gflops: of one image, attention products included.
    """

    def __init__(
        self, recipe: Recipe, ranks: Ranks, forward_gflops: float, log: MetricsLog | None, progress: Progress | None
    ) -> None:
        self.recipe = recipe
        self.ranks = ranks
        self.tflops_per_sample = FORWARD_AND_BACKWARD * forward_gflops / 1000
        self.log = log
        self.progress = progress
        self.logged_samples = 0
        self.logged_time = 0.0

    def on_start(self, state: TrainState) -> None:
        self.logged_samples, self.logged_time = state.samples_seen, time.perf_counter()

    def on_step(self, state: TrainState, result: StepResult) -> None:
        is_last = state.step == self.recipe.train.max_steps
        if state.step % self.recipe.tracking.log_every_steps and not is_last:
            if self.progress:
                self.progress.advance()
            return
        record = self.record(state, result)
        if self.log and self.progress:
            self.log.append(record)
            self.progress.advance(
                postfix_text=f"loss {record['loss']:.4f}, {record['samples_per_second']:.3g} samples/s"
            )
        if not math.isfinite(record["loss"]):
            raise NonFiniteError(f"the loss is {record['loss']} at step {state.step}")

    def on_stop(self, state: TrainState) -> None:
        if self.progress:
            self.progress.close()

    def record(self, state: TrainState, result: StepResult) -> dict[str, float | int]:
        loss = result.loss.clone()
        if self.ranks.world_size > 1:
            dist.all_reduce(loss)  # every rank has equally many rows, so the mean of means is the mean
        loss /= self.ranks.world_size
        values = torch.stack((loss, result.grad_norm.to(loss))).tolist()  # one wait for the device
        now = time.perf_counter()
        samples_per_second = (state.samples_seen - self.logged_samples) / (now - self.logged_time)
        self.logged_samples, self.logged_time = state.samples_seen, now
        return {
            "step": state.step,
            "time": time.time(),
            "samples_seen": state.samples_seen,
            "loss": values[0],
            "learning_rate": result.learning_rate,
            "grad_norm": values[1],
            "samples_per_second": samples_per_second,
            "model_tflops_per_second": samples_per_second * self.tflops_per_sample,
        }
