"""Where in a step this process is: for heartbeats, which name it, and for step times, which add it up."""

import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import NamedTuple

from ifvit.runtime.fault_injection import fault_point
from ifvit.training.state import Hook, StepResult, TrainState

START, FETCHING, END = "start", "fetching", "end"  # before the first step, waiting for shards' first batch, after all
DATA, FORWARD, BACKWARD, OPTIMIZER, HOOKS = "data", "forward", "backward", "optimizer", "hooks"
METRICS, CHECKPOINT, SAMPLING, ROLLBACK = (
    "metrics",
    "checkpoint",
    "sampling",
    "rollback",
)  # hooks whose work may take long
STEPS_REMEMBERED = 50


class Position(NamedTuple):
    """How far a process has come; a larger one is further."""

    num_rollbacks: int  # to an earlier step, by this process
    step: int  # counted from 1: the step that is being made
    num_phases: int  # that began in this step
    phase: str


class Phases:
    """Told by the loop which phase begins. Telling costs two microseconds.

    Attributes:
        position: where this process is; replaced as a whole, so that another thread may read it.
        seconds: by phase, on this process's clock, since it was cleared.
        longest: by phase, the longest time that one took, or would have taken with all that it began.
        step_seconds: of the last STEPS_REMEMBERED steps.
        listener: called with the name of each phase that begins, or None.
    """

    def __init__(self) -> None:
        self.position = Position(0, 0, 0, START)
        self.since = self.step_since = time.perf_counter()
        self.seconds: dict[str, float] = defaultdict(float)
        self.longest: dict[str, float] = defaultdict(float)
        self.step_seconds: deque[float] = deque(maxlen=STEPS_REMEMBERED)
        self.listener: Callable[[str], None] | None = None

    def enter(self, name: str, step: int) -> None:
        """Phase `name` of the step that is being made, counted from 1, begins."""
        now = time.perf_counter()
        before = self.position
        elapsed = now - self.since
        self.seconds[before.phase] += elapsed
        self.longest[before.phase] = max(self.longest[before.phase], elapsed)
        self.since = now
        if step == before.step:
            self.position = Position(before.num_rollbacks, step, before.num_phases + 1, name)
        else:
            if before.step > 0:
                self.step_seconds.append(now - self.step_since)
            self.step_since = now
            num_rollbacks = before.num_rollbacks + (step < before.step)
            self.position = Position(num_rollbacks, step, 0, name)
        if self.listener is not None:
            self.listener(name)
        fault_point(f"step.{name}", step)

    def took(self, name: str, seconds: float) -> None:
        """What phase `name` began went on for so long beside the others: waited for, the phase would take that."""
        self.longest[name] = max(self.longest[name], seconds)


class PhaseHook:
    """A hook whose work is a phase of its own, which may take long, in the steps for which it `is_due`; and at the end.

    In the others it is one of the hooks, and as soon late as they are: the same on all ranks.
    """

    def __init__(self, hook: Hook, name: str, phases: Phases, is_due: Callable[[TrainState], bool]) -> None:
        self.hook = hook
        self.name = name
        self.phases = phases
        self.is_due = is_due

    def on_start(self, state: TrainState) -> None:
        self.hook.on_start(state)

    def on_step(self, state: TrainState, result: StepResult) -> None:
        if not self.is_due(state):
            self.hook.on_step(state, result)
            return
        self.phases.enter(self.name, state.step)
        self.hook.on_step(state, result)
        self.phases.enter(HOOKS, state.step)

    def on_stop(self, state: TrainState) -> None:
        self.phases.enter(self.name, state.step)
        self.hook.on_stop(state)
        self.phases.enter(HOOKS, state.step)
