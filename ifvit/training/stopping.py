"""Ends training at a step boundary when the process is told to stop, on all ranks at the same step."""

import os
import signal
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from ifvit.runtime.distributed import Ranks
from ifvit.training.state import StepResult, TrainState

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopHook:
    """Sets `stop_reason` after a signal on any rank; the checkpoint hook then saves. A second signal ends at once."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.received = 0
        self.previous_handlers: dict[signal.Signals, Any] = {}

    def on_start(self, state: TrainState) -> None:
        for number in SIGNALS:
            self.previous_handlers[number] = signal.signal(number, self.receive)

    def on_step(self, state: TrainState, result: StepResult) -> None:
        received = torch.tensor(self.received)
        if self.ranks.world_size > 1:
            dist.all_reduce(received, dist.ReduceOp.MAX)  # on the CPU, beside the device's own queue
        if received.item():
            state.stop_reason = signal.Signals(int(received)).name

    def on_stop(self, state: TrainState) -> None:
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler)

    def receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = number
