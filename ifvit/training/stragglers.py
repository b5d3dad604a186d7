"""Warns of a rank that is slow by itself, without the time in which it waits for the others."""

import socket
import statistics
from collections.abc import Mapping, Sequence

from ifvit.runtime.agreement import gathered
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.standard_error import say

TIMES_IN_A_ROW = 3


class Stragglers:
    """Rank 0 names, once in a start, a rank that was slower than `ratio` times the median TIMES_IN_A_ROW times.

    Of two ranks the median is the faster one's.
    """

    def __init__(self, ratio: float, ranks: Ranks) -> None:
        self.ratio = ratio
        self.ranks = ranks
        self.times_in_a_row = [0] * ranks.world_size
        self.named: set[int] = set()

    def hear(self, own_seconds: Mapping[str, float], step: int) -> None:
        """Collective. `own_seconds`: by phase, of a step of this rank, without its waits; the same phases on all."""
        if self.ranks.world_size == 1:
            return
        everyones = gathered(self.ranks, (socket.gethostname(), dict(own_seconds)))
        seconds = [each for _, each in everyones]
        slow = slow_ranks(seconds, self.ratio)
        for rank, (host, _) in enumerate(everyones):
            self.times_in_a_row[rank] = self.times_in_a_row[rank] + 1 if rank in slow else 0
            if self.times_in_a_row[rank] == TIMES_IN_A_ROW and rank not in self.named:
                self.named.add(rank)
                if self.ranks.rank == 0:
                    times = f"{TIMES_IN_A_ROW} times in a row, up to step {step}"
                    say(f"straggler: rank {rank} on {host} {slow[rank]}; {times}")


def slow_ranks(seconds: Sequence[Mapping[str, float]], ratio: float) -> dict[int, str]:
    """By rank, in words, those whose own seconds are more than `ratio` times the median, and in which phase most."""
    totals = [sum(each.values()) for each in seconds]
    median = statistics.median_low(totals)
    slow = {}
    for rank, total in enumerate(totals):
        if total > ratio * median:
            usual = {phase: statistics.median_low([each[phase] for each in seconds]) for phase in seconds[rank]}
            phase = max(usual, key=lambda phase: seconds[rank][phase] - usual[phase])
            slow[rank] = (
                f"takes {total:.3g} s of a step by itself, the median rank {median:.3g} s; most of it in {phase}: "
                f"{seconds[rank][phase]:.3g} s, the median rank {usual[phase]:.3g} s"
            )
    return slow
