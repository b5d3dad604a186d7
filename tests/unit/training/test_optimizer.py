"""The optimiser's settings and the learning rate as the baseline has it."""

import pytest
import torch

from ifvit.config.errors import UserError
from ifvit.config.schema import OptimizerConfig, TrainConfig
from ifvit.training.engine import num_micro_batches
from ifvit.training.optimizer import learning_rate_at, make_optimizer


def test_learning_rate_starts_at_zero_and_stays_after_warmup() -> None:
    config = OptimizerConfig(learning_rate=2e-4, warmup_steps=5000)
    assert learning_rate_at(0, config) == 0
    assert learning_rate_at(1, config) == pytest.approx(2e-4 / 5000)
    assert learning_rate_at(2500, config) == pytest.approx(1e-4)
    assert learning_rate_at(5000, config) == learning_rate_at(10**6, config) == 2e-4


def test_without_warmup_the_first_step_counts() -> None:
    assert learning_rate_at(0, OptimizerConfig(learning_rate=1e-3, warmup_steps=0)) == 1e-3


def test_every_parameter_is_decayed_alike() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    (group,) = make_optimizer(model, OptimizerConfig()).param_groups
    assert len(group["params"]) == 4
    assert (group["weight_decay"], group["betas"], group["eps"]) == (0.03, (0.9, 0.9), 1e-8)


def test_micro_batches_are_derived() -> None:
    config = TrainConfig(global_batch_size=256, micro_batch_size=32)
    assert [num_micro_batches(config, world_size) for world_size in (1, 2, 8)] == [8, 4, 1]


def test_ranks_that_do_not_divide_the_batch_are_the_users_error() -> None:
    with pytest.raises(UserError, match=r"train\.micro_batch_size: 256 x 2 ranks = 512 .* must divide 128"):
        num_micro_batches(TrainConfig(global_batch_size=256, micro_batch_size=256), world_size=2)
    with pytest.raises(UserError, match=r"^train\.global_batch_size: 256 cannot be split evenly over 3 ranks; "):
        num_micro_batches(TrainConfig(global_batch_size=256, micro_batch_size=256), world_size=3)
