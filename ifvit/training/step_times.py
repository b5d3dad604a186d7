"""Where the time of a step goes: measured in a few of them, so that the others cost nothing."""

import bisect
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from ifvit.runtime.distributed import Ranks
from ifvit.training.clocks import Clock, clock_of
from ifvit.training.communication import CollectiveTimes
from ifvit.training.phases import BACKWARD, DATA, FORWARD, HOOKS, OPTIMIZER, Phases
from ifvit.training.state import StepResult, TrainState
from ifvit.training.stragglers import Stragglers

OF_THE_LOOP = (DATA, FORWARD, BACKWARD, OPTIMIZER)  # all other phases are hooks


class StepTimes:
    """Gives seconds_data, seconds_forward, seconds_backward, seconds_optimizer (with the average), seconds_hooks and
    seconds_communication of one step in `every`: means over the sampled steps since the last logged one and over the
    ranks, left out where there was none.

    The first five add up to the step; seconds_communication is the part of them in which it waited for collectives of
    DeepSpeed's. On a GPU these are times of its own queue: seconds_data, say, is how long it had nothing to do but wait
    for the batch. Sampled are steps away from round numbers, where checkpoints, grids and logs are made, and never the
    first step of a start, which is slower.
    """

    def __init__(self, phases: Phases, every: int, ranks: Ranks, device: torch.device, stragglers: Stragglers) -> None:
        self.phases = phases
        self.every = every
        self.ranks = ranks
        self.stragglers = stragglers
        self.clock = clock_of(device)
        self.collectives = CollectiveTimes(self.clock)
        self.marks: list[tuple[str, Any]] = []  # the phases of the step that is measured, and when each began
        self.collected: list[tuple[list[tuple[str, Any]], list[tuple[Any, Any]]]] = []
        self.is_next_sampled = False

    def on_start(self, state: TrainState) -> None:
        """The first step of a start is not measured, nor that after a rollback."""
        self.on_stop(state)
        self.marks, self.is_next_sampled = [], False

    def on_step(self, state: TrainState, result: StepResult) -> None:
        self.is_next_sampled = is_sampled(state.step + 1, self.every)
        if self.is_next_sampled:
            self.phases.listener = self.phase_begins

    def on_stop(self, state: TrainState) -> None:
        self.phases.listener = None
        if self.marks:
            self.collectives.stop()

    def phase_begins(self, name: str) -> None:
        moment = self.clock.now()
        if name != DATA:
            if self.marks:  # otherwise these are hooks of the step before the one that will be measured
                self.marks.append((name, moment))
            return
        if self.marks:  # the step that was measured is over, with its hooks
            self.collected.append(([*self.marks, ("end", moment)], self.collectives.stop()))
        if self.is_next_sampled:
            self.marks = [(name, moment)]
            self.collectives.start()
        else:
            self.marks = []
            self.phases.listener = None

    def metrics(self, state: TrainState, result: StepResult) -> dict[str, float]:
        if not self.collected:
            return {}
        seconds: dict[str, float] = {}
        for marks, intervals in self.collected:
            for (name, first), (_, last) in itertools.pairwise(marks):
                part = name if name in OF_THE_LOOP else HOOKS
                seconds[part] = seconds.get(part, 0.0) + self.clock.seconds(first, last)
            waited = sum(self.clock.seconds(first, last) for first, last in intervals)
            seconds["communication"] = seconds.get("communication", 0.0) + waited
        sums = torch.tensor(list(seconds.values()), dtype=torch.float64)
        if self.ranks.world_size > 1:
            dist.all_reduce(sums)
        means = (sums / len(self.collected) / self.ranks.world_size).tolist()
        own = Counter[str]()
        for marks, intervals in self.collected:
            own.update(own_seconds(marks, intervals, self.clock))
        self.stragglers.hear({name: total / len(self.collected) for name, total in own.items()}, state.step)
        self.collected = []
        return {f"seconds_{name}": mean for name, mean in zip(seconds, means, strict=True)}


def own_seconds(
    marks: Sequence[tuple[str, Any]], intervals: Sequence[tuple[Any, Any]], clock: Clock
) -> dict[str, float]:
    """By phase of the loop, how long this rank took without the collectives, in which it waits for the others."""
    begin = marks[0][1]
    moments = [clock.seconds(begin, moment) for _, moment in marks]
    own = dict.fromkeys(OF_THE_LOOP, 0.0)
    for (name, _), first, last in zip(marks, moments, moments[1:], strict=False):
        if name in own:
            own[name] += last - first
    for first, last in intervals:
        at, until = clock.seconds(begin, first), clock.seconds(begin, last)
        name = marks[bisect.bisect_right(moments, at) - 1][0]
        if name in own:
            own[name] -= until - at
    return own


def is_sampled(step: int, every: int) -> bool:
    """Whether the parts of this step, counted from 1, are measured."""
    return step % every == (every // 2 + 1) % every
