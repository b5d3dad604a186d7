"""Which steps are measured, what counts for which part, and that the others are left alone."""

import pytest
import torch

from ifvit.runtime.distributed import Ranks
from ifvit.training.phases import BACKWARD, DATA, FORWARD, HOOKS, METRICS, OPTIMIZER, ROLLBACK, Phases
from ifvit.training.state import TrainState
from ifvit.training.step_times import StepTimes, is_sampled, own_seconds
from ifvit.training.stragglers import Stragglers
from tests.unit.training.step_results import result_of


class CountedClock:
    """Each moment is one second after the last one."""

    def __init__(self) -> None:
        self.moment = 0.0

    def now(self) -> float:
        self.moment += 1
        return self.moment

    def seconds(self, first: float, last: float) -> float:
        return last - first


class NoCollectives:
    """Stands for those of DeepSpeed, which is not there: two of half a second in each measured step."""

    def __init__(self) -> None:
        self.started = 0

    def start(self) -> None:
        self.started += 1

    def stop(self) -> list[tuple[float, float]]:
        return [(1.0, 1.5), (2.0, 2.5)]


def trained(steps: int, every: int, monkeypatch: pytest.MonkeyPatch) -> tuple[StepTimes, Phases]:
    """After so many steps with two micro-batches each, the hooks of the last one done."""
    phases = Phases()
    meter = StepTimes(phases, every, Ranks(), torch.device("cpu"), Stragglers(1.5, Ranks()))
    monkeypatch.setattr(meter, "clock", CountedClock())
    monkeypatch.setattr(meter, "collectives", NoCollectives())
    state = TrainState()
    meter.on_start(state)
    for number in range(1, steps + 1):
        for name in (DATA, FORWARD, BACKWARD, FORWARD, BACKWARD, OPTIMIZER):
            phases.enter(name, number)
        state.step = number
        phases.enter(HOOKS, number)
        phases.enter(METRICS, number)
        meter.on_step(state, result_of())
        phases.enter(HOOKS, number)
    return meter, phases


def test_a_measured_step_is_the_sum_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    meter, phases = trained(4, 4, monkeypatch)  # the third step is measured
    assert meter.metrics(TrainState(), result_of()) == {
        "seconds_data": 1,
        "seconds_forward": 2,
        "seconds_backward": 2,
        "seconds_optimizer": 1,
        "seconds_hooks": 3,
        "seconds_communication": 1,
    }
    assert phases.listener is None
    assert meter.metrics(TrainState(), result_of()) == {}


def test_every_step_can_be_measured_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    meter, _ = trained(4, 1, monkeypatch)
    assert len(meter.collected) == 2  # the hooks of the fourth are not over
    assert meter.metrics(TrainState(), result_of())["seconds_forward"] == 2


def test_a_step_that_a_rollback_ends_is_not_measured_nor_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    meter, phases = trained(3, 1, monkeypatch)
    num_collected = len(meter.collected)
    phases.enter(ROLLBACK, 3)
    meter.on_start(TrainState(step=1))
    for name in (DATA, FORWARD):
        phases.enter(name, 2)
    assert (meter.marks, phases.listener, len(meter.collected)) == ([], None, num_collected)


def test_only_measured_steps_are_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    meter, phases = trained(60, 100, monkeypatch)
    assert len(meter.collected) == 1
    assert meter.collectives.started == 1  # type: ignore[attr-defined]
    assert phases.listener is None


def test_a_run_that_stops_in_a_measured_step_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    meter, phases = trained(3, 1, monkeypatch)
    meter.on_stop(TrainState())
    assert phases.listener is None


def test_measured_steps_are_not_those_with_round_numbers() -> None:
    assert [step for step in range(1, 301) if is_sampled(step, 100)] == [51, 151, 251]
    assert [step for step in range(1, 4) if is_sampled(step, 1)] == [1, 2, 3]
    assert [step for step in range(1, 7) if is_sampled(step, 2)] == [2, 4, 6]


def test_a_rank_s_own_time_is_without_the_collectives() -> None:
    """They count for the phase that they began in; two forward passes, a collective in each and one in a hook."""
    names = (DATA, FORWARD, BACKWARD, FORWARD, OPTIMIZER, HOOKS, "end")
    marks = list(zip(names, (1.0, 2.0, 5.0, 6.0, 9.0, 10.0, 20.0), strict=True))
    own = own_seconds(marks, [(2.5, 3.0), (6.5, 8.5), (12.0, 19.0)], CountedClock())
    assert own == {DATA: 1.0, FORWARD: 3.5, BACKWARD: 1.0, OPTIMIZER: 1.0}
