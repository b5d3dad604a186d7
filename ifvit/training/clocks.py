"""Moments of a step, taken without waiting for the device, and read out later."""

import time
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """Takes moments of the work that a step has given to the device."""

    def now(self) -> Any: ...
    def seconds(self, first: Any, last: Any) -> float: ...  # waits until both have passed


class WallClock:
    """For a CPU, whose work is done when a call returns."""

    def now(self) -> float:
        return time.perf_counter()

    def seconds(self, first: float, last: float) -> float:
        return last - first


class DeviceClock:
    """For a GPU: moments on its own time line, between the operations that were given to it before and after."""

    def now(self) -> torch.cuda.Event:
        moment = torch.cuda.Event(enable_timing=True)
        moment.record()
        return moment

    def seconds(self, first: torch.cuda.Event, last: torch.cuda.Event) -> float:
        last.synchronize()
        return first.elapsed_time(last) / 1000


def clock_of(device: torch.device) -> Clock:
    """The clock for what runs on `device`."""
    return DeviceClock() if device.type == "cuda" else WallClock()
