"""What is said of measured windows, and that trainings take turns."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ifvit.benchmark import synthetic_training
from ifvit.benchmark.part_clock import PartClock
from ifvit.benchmark.step_time import StepTimes, measure_steps
from ifvit.benchmark.synthetic_training import SyntheticTraining, Window, plain_engine
from ifvit.training import clocks
from tests.drawn_coco import tiny_recipe


def times(*seconds: float) -> StepTimes:
    return StepTimes([Window(each, {"forward": each / 4}, 0.0) for each in seconds])


def test_medians_spread_and_ratios() -> None:
    slow, fast = times(4.0, 3.0, 8.0), times(1.0, 3.0, 2.0)
    assert (slow.step_seconds, slow.best_seconds, slow.spread) == (4.0, 3.0, 5 / 4)
    assert slow.ratio_to(fast) == 4.0  # of 4 / 1, 3 / 3, 8 / 2 the median: rounds are compared, not medians
    assert slow.part_seconds("forward") == 1.0


def test_trainings_take_turns_and_the_first_window_is_not_counted() -> None:
    order = []

    class Training:
        def __init__(self, name: str) -> None:
            self.name = name

        def run_window(self, num_steps: int) -> Window:
            order.append((self.name, num_steps))
            return Window(float(len(order)), {}, 0.0)

    trainings: dict[str, Any] = {"a": Training("a"), "b": Training("b")}
    measured = measure_steps(trainings, windows=2, steps_per_window=3)
    assert order == [("a", 3), ("b", 3), ("b", 3), ("a", 3), ("a", 3), ("b", 3)]
    assert {name: each.seconds for name, each in measured.items()} == {"a": [4.0, 5.0], "b": [3.0, 6.0]}


def test_parts_add_up_to_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 1.0, 3.0, 6.0, 10.0, 100.0, 101.0])
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: next(ticks))
    clock = PartClock(torch.device("cpu"))
    clock.start()
    for part in ("forward", "backward", "forward", "optimizer"):
        clock.enter(part)
    assert clock.seconds() == {"forward": 4.0, "backward": 2.0, "optimizer": 4.0}
    clock.start()
    clock.enter("forward")
    assert clock.seconds() == {"forward": 1.0}
    clock.enter("forward")  # of steps that nobody asks about: not kept
    assert not clock.marks


def test_the_moments_that_the_first_step_makes_are_state(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1.0
    monkeypatch.setattr(synthetic_training, "allocated_memory", lambda device: now)
    monkeypatch.setattr(synthetic_training, "peak_memory", lambda device: 10.0)
    recipe = tiny_recipe(Path("/nowhere"), Path("/nowhere"), "train.precision=fp32", "runtime.zero_stage=0")
    training = SyntheticTraining(recipe, torch.device("cpu"), plain_engine)
    update = training.ema.update

    def grown_update() -> None:
        nonlocal now
        now = 4.0
        update()

    monkeypatch.setattr(training.ema, "update", grown_update)
    assert training.run_window(2).step_memory_gb == 6.0
    assert training.state_memory_gb == 3.0
    training.run_window(1)
    assert training.state_memory_gb == 3.0
