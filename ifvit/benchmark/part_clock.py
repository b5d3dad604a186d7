"""Seconds of the parts of steps, measured without making the host wait for the device."""

import time
from itertools import pairwise

import torch


class PartClock:
    """`enter` names the part that begins and ends the one before; `seconds` adds them up."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.parts: list[str] = []
        self.events: list[torch.cuda.Event] = []  # on a GPU
        self.times: list[float] = []  # on a CPU

    def enter(self, part: str) -> None:
        self.parts.append(part)
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()  # behind what the device has been given so far
            self.events.append(event)
        else:
            self.times.append(time.perf_counter())

    def seconds(self) -> dict[str, float]:
        """The sum of each part since the last call; the part that was entered last ends here."""
        self.enter("end")
        if self.events:
            torch.cuda.synchronize(self.device)
            spans = [begin.elapsed_time(end) / 1000 for begin, end in pairwise(self.events)]  # from milliseconds
        else:
            spans = [end - begin for begin, end in pairwise(self.times)]
        total: dict[str, float] = {}
        for part, span in zip(self.parts, spans, strict=False):
            total[part] = total.get(part, 0.0) + span
        self.parts, self.events, self.times = [], [], []
        return total
