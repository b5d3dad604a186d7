"""How well the devices are used: the speed of the model's own arithmetic, and memory."""

import time

import torch
import torch.distributed as dist

from ifvit.config.schema import Recipe
from ifvit.runtime.devices import memory_bytes, peak_tflops
from ifvit.runtime.distributed import Ranks
from ifvit.training.state import StepResult, TrainState

FORWARD_AND_BACKWARD = 3  # a training step costs three forward passes


class DeviceUse:
    """Gives samples_per_second, model_tflops_per_second, mfu and memory_gb.

    Speeds are those of all ranks by the wall clock since the last logged step, checkpoints and grids in between
    included. model_tflops_per_second counts the model's arithmetic once, recomputed activations not again. mfu is its
    share of the peak of all devices: tracking.device_peak_tflops, or the data sheet's dense peak in the recipe's
    precision; it is left out where neither is known. memory_gb, 1e9 bytes, is that of the rank with most: on a GPU the
    most that tensors have taken since the start, on a CPU the process's resident set now.

    Args:
        forward_gflops: of one image, attention products included.
    """

    def __init__(self, recipe: Recipe, ranks: Ranks, device: torch.device, forward_gflops: float) -> None:
        self.ranks = ranks
        self.device = device
        self.tflops_per_sample = FORWARD_AND_BACKWARD * forward_gflops / 1000
        self.peak = recipe.tracking.device_peak_tflops or peak_tflops(device, recipe.train.precision)
        self.logged_samples = 0
        self.logged_time = 0.0

    def on_start(self, state: TrainState) -> None:
        self.logged_samples, self.logged_time = state.samples_seen, time.perf_counter()

    def on_step(self, state: TrainState, result: StepResult) -> None:
        """The speed follows from the state."""

    def on_stop(self, state: TrainState) -> None:
        """Nothing is held."""

    def metrics(self, state: TrainState, result: StepResult) -> dict[str, float]:
        memory = torch.tensor(memory_bytes(self.device))
        if self.ranks.world_size > 1:
            dist.all_reduce(memory, dist.ReduceOp.MAX)
        now = time.perf_counter()
        samples_per_second = (state.samples_seen - self.logged_samples) / (now - self.logged_time)
        self.logged_samples, self.logged_time = state.samples_seen, now
        tflops = samples_per_second * self.tflops_per_sample
        use = {"samples_per_second": samples_per_second, "model_tflops_per_second": tflops}
        if self.peak is not None:
            use["mfu"] = tflops / (self.peak * self.ranks.world_size)
        return use | {"memory_gb": int(memory) / 1e9}
