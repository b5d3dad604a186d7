"""What watching a training costs: steps with its hooks and without, in turns, and what each save takes."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

from ifvit.benchmark.synthetic_training import MustSkip, SyntheticTraining
from ifvit.model.attention_choice import synchronise
from ifvit.training.loop import never
from ifvit.training.phases import CHECKPOINT, END, HOOKS, METRICS
from ifvit.training.state import Hook, StepResult, TrainState


class DuringSteps:
    """A hook that has begun already, and does not end with a window."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook

    def on_start(self, state: TrainState) -> None: ...

    def on_step(self, state: TrainState, result: StepResult) -> None:
        self.hook.on_step(state, result)

    def on_stop(self, state: TrainState) -> None: ...


def measure_hooks(
    training: SyntheticTraining,
    hooks: Sequence[Hook],
    must_skip: MustSkip,
    windows: int,
    steps_per_window: int,
) -> dict[str, Any]:
    """Seconds per step with and without `hooks` and `must_skip`: medians of `windows` windows, a first one not counted.

    `hooks_share` is the part of the watched steps that this process spent in hooks; `ratio_of_rounds` is the median
    over the rounds of watched / bare, which also has what threads beside the loop cost, and the machine's noise.
    """
    for hook in hooks:
        hook.on_start(training.state)
    watching = [DuringSteps(hook) for hook in hooks]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    in_hooks = 0.0
    for window in range(windows + 1):
        for is_watched in (True, False) if window % 2 else (False, True):
            hooks_before = hook_seconds(training)
            elapsed = window_seconds(training, steps_per_window, *((watching, must_skip) if is_watched else ()))
            if window > 0:
                seconds[is_watched].append(elapsed / steps_per_window)
                in_hooks += (hook_seconds(training) - hooks_before) if is_watched else 0.0
    ratios = [watched / bare for watched, bare in zip(seconds[True], seconds[False], strict=True)]
    return {
        "watched_step_seconds": statistics.median(seconds[True]),
        "bare_step_seconds": statistics.median(seconds[False]),
        "hooks_share": in_hooks / (sum(seconds[True]) * steps_per_window),
        "ratio_of_rounds": statistics.median(ratios),
        "spread_of_rounds": max(ratios) - min(ratios),
    }


def hook_seconds(training: SyntheticTraining) -> float:
    """Of this process, in hooks, so far."""
    return sum(training.phases.seconds[phase] for phase in (HOOKS, METRICS, CHECKPOINT))


def window_seconds(
    training: SyntheticTraining, num_steps: int, hooks: Sequence[Hook] = (), must_skip: MustSkip = never
) -> float:
    synchronise(training.device)
    start = time.perf_counter()
    training.train_steps(num_steps, hooks, must_skip)
    synchronise(training.device)
    seconds = time.perf_counter() - start
    training.phases.enter(END, training.state.step)  # what comes now is no hook's
    if training.state.stop_reason is not None:  # its steps were not made: nothing was measured
        raise SystemExit(f"stopped by {training.state.stop_reason}")
    return seconds
