"""Watched and bare windows take turns, and what is said of their differences."""

from typing import Any

import pytest
import torch

from ifvit.benchmark import hook_cost
from ifvit.benchmark.hook_cost import error_of_median, measure_hooks, window_seconds
from ifvit.training.loop import never
from ifvit.training.phases import Phases
from ifvit.training.state import TrainState


class FeignedTraining:
    """Ten steps a second, those of watched windows a tenth slower; each window is slower than the one before."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.state = TrainState()
        self.phases = Phases()
        self.windows: list[tuple[bool, int]] = []  # whether it was watched, and the last step
        self.now = 0.0

    def train_steps(self, num_steps: int, hooks: Any = (), must_skip: Any = never) -> None:
        self.state.step += num_steps
        self.windows.append((bool(hooks), self.state.step))
        self.now += num_steps * (0.1 + 0.01 * bool(hooks) + 0.001 * len(self.windows))


class Watcher:
    def on_start(self, state: TrainState) -> None: ...
    def on_step(self, state: TrainState, result: Any) -> None: ...
    def on_stop(self, state: TrainState) -> None: ...


def test_watched_steps_are_counted_alone_and_drift_favours_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    training: Any = FeignedTraining()
    monkeypatch.setattr(hook_cost.time, "perf_counter", lambda: training.now)
    measured = measure_hooks(training, [Watcher()], never, windows=4, steps_per_window=5)
    assert [is_watched for is_watched, _ in training.windows] == [False, True, True, False] * 2 + [False, True]
    assert [step for is_watched, step in training.windows if is_watched] == [5, 10, 15, 20, 25]
    assert training.state.step == 25
    assert measured["overhead"] == pytest.approx(0.01 / 0.107, rel=0.03)


def test_one_window_far_away_hardly_moves_the_error() -> None:
    values = [0.01, 0.02, 0.03, 0.04, 0.05]
    error = error_of_median(values)
    assert error == pytest.approx(1.2533 * 1.4826 * 0.01 / 5**0.5)
    assert error_of_median([*values[:-1], 5.0]) == error


def test_a_stop_ends_the_measurement_as_ctrl_c_does() -> None:
    training: Any = FeignedTraining()
    training.state.stop_reason = "SIGINT on rank 0 (here)"
    with pytest.raises(KeyboardInterrupt, match="SIGINT on rank 0"):
        window_seconds(training, 1)
