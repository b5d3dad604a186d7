"""What watching a training costs: steps with its hooks and without, in turns, and what each save takes."""

import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

from ifvit.benchmark.synthetic_training import MustSkip, SyntheticTraining
from ifvit.model.attention_choice import synchronise
from ifvit.training.loop import never
from ifvit.training.phases import CHECKPOINT, END, HOOKS, METRICS
from ifvit.training.state import Hook, StepResult, TrainState

TO_SIGMA = 1.4826  # times the median distance from the median, of normal numbers
OF_A_MEDIAN = 1.2533  # times sigma / sqrt(n)


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
    """Seconds per step with and without `hooks` and `must_skip`: medians of `windows` pairs, two or more.

    A window of steps with them and one without make a pair; the first pair is not counted. Pairs are made in the order
    bare, watched, watched, bare, so that a machine that becomes slower favours neither. Hooks see the watched steps
    alone, numbered from 1, so that all watched windows are alike where they log once in one.

    `hooks_share` is the part of the watched steps that this process spent in hooks. `overhead` is the median over the
    pairs of watched / bare - 1, with its `overhead_standard_error`: also what hooks leave to others, such as threads
    and a GPU's queue, and the noise of the machine.
    """
    for hook in hooks:
        hook.on_start(training.state)
    watching = [DuringSteps(hook) for hook in hooks]
    states = {True: training.state, False: TrainState()}
    seconds: dict[bool, list[float]] = {True: [], False: []}
    in_hooks = 0.0
    for window in range(windows + 1):
        for is_watched in (True, False) if window % 2 else (False, True):
            hooks_before = hook_seconds(training)
            training.state = states[is_watched]
            elapsed = window_seconds(training, steps_per_window, *((watching, must_skip) if is_watched else ()))
            if window > 0:
                seconds[is_watched].append(elapsed / steps_per_window)
                in_hooks += (hook_seconds(training) - hooks_before) if is_watched else 0.0
    training.state = states[True]
    overheads = [watched / bare - 1 for watched, bare in zip(seconds[True], seconds[False], strict=True)]
    return {
        "watched_step_seconds": statistics.median(seconds[True]),
        "bare_step_seconds": statistics.median(seconds[False]),
        "hooks_share": in_hooks / (sum(seconds[True]) * steps_per_window),
        "overhead": statistics.median(overheads),
        "overhead_standard_error": error_of_median(overheads),
    }


def error_of_median(values: Sequence[float]) -> float:
    """The standard error of the median of `values`, two or more: normal numbers, but for a few far away."""
    middle = statistics.median(values)
    sigma = TO_SIGMA * statistics.median(abs(value - middle) for value in values)
    return OF_A_MEDIAN * sigma / math.sqrt(len(values))


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
    if training.state.stop_reason is not None:  # by Ctrl-C, which only sets it: its steps were not made
        raise KeyboardInterrupt(training.state.stop_reason)
    return seconds
