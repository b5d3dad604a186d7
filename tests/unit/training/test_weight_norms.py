"""The norms are those of all weights, and of what one step changes."""

import pytest
import torch

from ifvit.training.fragments import Fragment
from ifvit.training.state import TrainState
from ifvit.training.weight_norms import WeightNorms
from tests.unit.training.step_results import recipe_of, result_of


def fragment(values: list[float]) -> Fragment:
    weight = torch.tensor(values)
    return Fragment("weight", 0, weight, weight, 0)


def test_norms_of_a_logged_step_between_others() -> None:
    parts = [fragment([3.0, 0.0]), fragment([4.0])]
    meter = WeightNorms(parts, is_sharded=False, recipe=recipe_of("tracking.log_every_steps=3"))
    state, result = TrainState(), result_of()
    meter.on_start(state)
    for state.step in (1, 2, 3):
        assert bool(meter.before) == (state.step == 3)  # a copy only for the step that is logged
        parts[1].weight.sub_(0.5)
        meter.on_step(state, result)
    norms = meter.metrics(state, result)
    assert norms == pytest.approx({"weight_norm": (9 + 2.5**2) ** 0.5, "update_norm": 0.5})
    assert meter.before == []


def test_every_step_logged_gives_every_update() -> None:
    part = fragment([1.0])
    meter = WeightNorms([part], is_sharded=False, recipe=recipe_of("tracking.log_every_steps=1"))
    state, result = TrainState(), result_of()
    meter.on_start(state)
    for state.step in (1, 2):
        part.weight.add_(state.step)
        meter.on_step(state, result)
        assert meter.metrics(state, result)["update_norm"] == state.step


def test_no_update_norm_where_the_copy_is_not_of_the_step_before() -> None:
    """As after a return to an earlier checkpoint."""
    meter = WeightNorms([fragment([1.0])], is_sharded=False, recipe=recipe_of("tracking.log_every_steps=1"))
    meter.on_start(TrainState(step=7))
    assert meter.metrics(TrainState(step=5), result_of()).keys() == {"weight_norm"}
