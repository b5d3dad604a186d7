"""How long a step stands still for the collectives that DeepSpeed calls."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from ifvit.training.clocks import Clock

# Of DeepSpeed's torch backend, through which all that it exchanges goes.
COLLECTIVES = (
    "all_reduce", "all_reduce_coalesced", "reduce", "reduce_scatter", "reduce_scatter_tensor", "all_gather",
    "all_gather_into_tensor", "all_gather_coalesced", "broadcast", "all_to_all_single", "barrier",
)  # fmt: skip


class CollectiveTimes:
    """Times them between `start` and `stop`; otherwise they are called as if this were not here.

    Of one that is only begun, what counts is the call itself and the wait for its end: what runs beside the step's own
    arithmetic costs nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.intervals: list[tuple[Any, Any]] = []

    def start(self) -> None:
        self.intervals = []
        # Through import_module, because the attribute deepspeed.comm.comm of the package may be another thing.
        backend = import_module("deepspeed.comm.comm").cdb
        for name in COLLECTIVES:
            # From the class: one that an earlier start left behind, in a step that failed, is not timed twice.
            vars(backend)[name] = self.timed(getattr(type(backend), name).__get__(backend))

    def stop(self) -> list[tuple[Any, Any]]:
        """The first and last moments of each since `start`."""
        backend = import_module("deepspeed.comm.comm").cdb
        for name in COLLECTIVES:
            vars(backend).pop(name, None)
        return self.intervals

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            first = self.clock.now()
            result = function(*arguments, **options)
            self.intervals.append((first, self.clock.now()))
            return TimedWork(result, self.timed(result.wait)) if hasattr(result, "wait") else result

        return call


class TimedWork:
    """A collective that was begun, with a timed `wait`."""

    def __init__(self, work: Any, wait: Callable[..., Any]) -> None:
        self.work = work
        self.wait = wait

    def __getattr__(self, name: str) -> Any:
        return getattr(self.work, name)
