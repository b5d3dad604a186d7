"""Ends training at a step boundary when a process is told to stop, on all ranks at the same step."""

import signal
import socket

import torch
import torch.distributed as dist

from ifvit.runtime.agreement import gathered
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.stop_requests import StopRequests
from ifvit.training.phases import CHECKPOINT, METRICS, SAMPLING, Phases
from ifvit.training.state import StepResult, TrainState

OUT_OF_TIME = 1000  # above all signals' numbers
MAX_RANKS = 1 << 32
# What is left for the last save: twice the longest one so far, the longest of the last steps, the longest grid and
# validation, which may be long ago and come with the next step, and this for what was never seen.
SHARE_LEFT = 0.05
MOST_SECONDS_LEFT = 300.0


class StopHook:
    """Sets `stop_reason` after a signal on any rank, or when the time is up; the checkpoint hook then saves.

    The ranks agree through the CPU: nothing waits for the device. Where the time is up before the first step, that
    step is still made, so that a run that is started again and again comes to its end.
    """

    def __init__(self, ranks: Ranks, requests: StopRequests, phases: Phases, max_steps: int) -> None:
        self.ranks = ranks
        self.requests = requests
        self.phases = phases
        self.max_steps = max_steps

    def on_start(self, state: TrainState) -> None:
        self.agree(state, self.requests.received or 0)

    def on_step(self, state: TrainState, result: StepResult) -> None:
        if state.step < self.max_steps:  # else it ends anyway
            is_out_of_time = self.requests.is_out_of_time(self.seconds_to_save())
            self.agree(state, OUT_OF_TIME if is_out_of_time else self.requests.received or 0)

    def on_stop(self, state: TrainState) -> None: ...

    def agree(self, state: TrainState, request: int) -> None:
        """Collective. Of several requests the largest number wins, of equal ones the lowest rank's."""
        agreed = torch.tensor(request * MAX_RANKS + MAX_RANKS - 1 - self.ranks.rank)
        if self.ranks.world_size > 1:
            dist.all_reduce(agreed, dist.ReduceOp.MAX)
        number, rank = divmod(int(agreed), MAX_RANKS)
        if number:
            name = "runtime.max_hours" if number == OUT_OF_TIME else signal.Signals(number).name
            rank = MAX_RANKS - 1 - rank
            host = gathered(self.ranks, socket.gethostname())[rank]
            state.stop_reason = f"{name} on rank {rank} ({host})"

    def seconds_to_save(self) -> float:
        if self.requests.max_seconds is None:
            return 0.0
        unseen = min(SHARE_LEFT * self.requests.max_seconds, MOST_SECONDS_LEFT)
        longest = self.phases.longest
        next_step = max(self.phases.step_seconds, default=0.0) + longest[METRICS] + longest[SAMPLING]
        return unseen + 2 * longest[CHECKPOINT] + next_step
