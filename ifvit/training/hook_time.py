"""How long training stands still for one of its hooks."""

import time

from ifvit.training.state import Hook, StepResult, TrainState


class HookTime:
    """Gives seconds_NAME of the hook that `around` was called with: the mean over the steps since the last logged one,
    like the other parts of a step, although a hook may do its work in few of them.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.seconds = 0.0
        self.steps = 0

    def around(self, hook: Hook) -> Hook:
        """`hook`, timed."""
        return TimedHook(hook, self)

    def on_start(self, state: TrainState) -> None:
        """The hook itself counts its steps."""

    def on_step(self, state: TrainState, result: StepResult) -> None:
        """The hook itself counts its steps."""

    def on_stop(self, state: TrainState) -> None:
        """Nothing is held."""

    def metrics(self, state: TrainState, result: StepResult) -> dict[str, float]:
        if not self.steps:
            return {}
        mean = self.seconds / self.steps
        self.seconds, self.steps = 0.0, 0
        return {f"seconds_{self.name}": mean}


class TimedHook:
    """Passes everything on to `hook`."""

    def __init__(self, hook: Hook, time_of_hook: HookTime) -> None:
        self.hook = hook
        self.time = time_of_hook

    def on_start(self, state: TrainState) -> None:
        self.hook.on_start(state)

    def on_step(self, state: TrainState, result: StepResult) -> None:
        started = time.perf_counter()
        self.hook.on_step(state, result)
        self.time.seconds += time.perf_counter() - started
        self.time.steps += 1

    def on_stop(self, state: TrainState) -> None:
        self.hook.on_stop(state)
