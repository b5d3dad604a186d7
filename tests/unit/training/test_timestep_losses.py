"""The loss of each tenth of the schedule, over all steps since the last logged one."""

import pytest
import torch

from ifvit.runtime.distributed import Ranks
from ifvit.training.state import TrainState
from ifvit.training.timestep_losses import TimestepLosses
from tests.unit.training.step_results import result_of


def losses_of(*steps: tuple[list[float], list[int]], num_train_timesteps: int = 1000) -> dict[str, float]:
    meter = TimestepLosses(num_train_timesteps, Ranks(), torch.device("cpu"))
    meter.on_start(TrainState())
    for losses, timesteps in steps:
        meter.on_step(TrainState(), result_of(torch.tensor(losses), torch.tensor(timesteps)))
    return meter.metrics(TrainState(), result_of())


def test_each_tenth_has_the_mean_of_its_samples() -> None:
    found = losses_of(([1.0, 2.0, 4.0], [0, 99, 100]), ([6.0, 5.0], [50, 999]))
    assert found == pytest.approx({"loss_timesteps_0": 3.0, "loss_timesteps_1": 4.0, "loss_timesteps_9": 5.0})


def test_a_schedule_of_another_length_has_ten_parts_too() -> None:
    assert losses_of(([1.0, 2.0], [24, 25]), num_train_timesteps=250).keys() == {"loss_timesteps_0", "loss_timesteps_1"}


def test_what_is_no_number_does_not_spoil_the_others() -> None:
    assert losses_of(([float("nan"), 2.0, float("inf")], [1, 2, 500])) == {"loss_timesteps_0": 2.0}


def test_a_logged_step_begins_anew() -> None:
    meter = TimestepLosses(1000, Ranks(), torch.device("cpu"))
    meter.on_step(TrainState(), result_of(torch.tensor([1.0])))
    assert meter.metrics(TrainState(), result_of()) == {"loss_timesteps_0": 1.0}
    assert meter.metrics(TrainState(), result_of()) == {}
