"""The time of one hook, as a mean over the steps since the last logged one."""

import time

import pytest

from ifvit.training.hook_time import HookTime
from ifvit.training.state import StepResult, TrainState
from tests.unit.training.step_results import result_of


class Recorder:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_start(self, state: TrainState) -> None:
        self.calls.append("start")

    def on_step(self, state: TrainState, result: StepResult) -> None:
        self.calls.append("step")

    def on_stop(self, state: TrainState) -> None:
        self.calls.append("stop")


def test_mean_since_the_last_logged_step(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter((0.0, 3.0, 10.0, 11.0, 20.0, 20.5))
    monkeypatch.setattr(time, "perf_counter", lambda: next(moments))
    meter, recorder = HookTime("checkpoint"), Recorder()
    hook = meter.around(recorder)
    hook.on_start(TrainState())
    assert meter.metrics(TrainState(), result_of()) == {}
    hook.on_step(TrainState(), result_of())
    hook.on_step(TrainState(), result_of())
    assert meter.metrics(TrainState(), result_of()) == {"seconds_checkpoint": 2.0}
    hook.on_step(TrainState(), result_of())
    assert meter.metrics(TrainState(), result_of()) == {"seconds_checkpoint": 0.5}
    hook.on_stop(TrainState())
    assert recorder.calls == ["start", "step", "step", "step", "stop"]
