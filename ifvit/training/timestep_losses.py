"""The training loss by timestep: where in the noise the model is good and where it is not."""

import torch
import torch.distributed as dist

from ifvit.runtime.distributed import Ranks
from ifvit.training.state import StepResult, TrainState

NUM_BINS = 10


class TimestepLosses:
    """Gives loss_timesteps_0 .. loss_timesteps_9: the mean loss of all samples since the last logged step whose
    timestep lies in that tenth of the schedule, _0 the least noise. A tenth without samples, or with none but
    non-finite losses, is left out.
    """

    def __init__(self, num_train_timesteps: int, ranks: Ranks, device: torch.device) -> None:
        self.num_train_timesteps = num_train_timesteps
        self.ranks = ranks
        self.sums = torch.zeros(2, NUM_BINS, dtype=torch.float64, device=device)  # of losses, and of samples

    def on_start(self, state: TrainState) -> None:
        self.sums.zero_()

    def on_step(self, state: TrainState, result: StepResult) -> None:
        bins = result.timesteps * NUM_BINS // self.num_train_timesteps
        is_finite = result.sample_losses.isfinite()
        values = torch.stack((result.sample_losses.where(is_finite, 0), is_finite)).double()
        self.sums.index_add_(1, bins, values)

    def on_stop(self, state: TrainState) -> None:
        """Nothing is held."""

    def metrics(self, state: TrainState, result: StepResult) -> dict[str, float]:
        sums = self.sums.clone()
        self.sums.zero_()
        if self.ranks.world_size > 1:
            dist.all_reduce(sums)
        losses, counts = sums.tolist()
        return {
            f"loss_timesteps_{number}": losses[number] / counts[number] for number in range(NUM_BINS) if counts[number]
        }
