"""Seconds of the parts of steps, measured without making the host wait for the device."""

from itertools import pairwise
from typing import Any

import torch

from ifvit.training.clocks import clock_of


class PartClock:
    """From `start` on `enter` names the part that begins and ends the one before, until `seconds` adds them up."""

    def __init__(self, device: torch.device) -> None:
        self.clock = clock_of(device)
        self.marks: list[tuple[str, Any]] = []
        self.is_running = False

    def start(self) -> None:
        self.marks.clear()
        self.is_running = True

    def enter(self, part: str) -> None:
        if self.is_running:  # else nobody would take the marks away
            self.marks.append((part, self.clock.now()))

    def seconds(self) -> dict[str, float]:
        """The sum of each part since `start`; the part that was entered last ends here. Waits for the device."""
        self.enter("end")
        total: dict[str, float] = {}
        for (part, begin), (_, end) in pairwise(self.marks):
            total[part] = total.get(part, 0.0) + self.clock.seconds(begin, end)
        self.marks.clear()
        self.is_running = False
        return total
