"""Which of several sets of samples a global position takes from, in exact shares: a function of (seed, position)."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ifvit.config.errors import UserError
from ifvit.data.order import permuted
from ifvit.data.sample_index import Integers

CYCLE = 10_000  # positions in which every set has its share exactly


class Mixture:
    """Endless, like the order of each set: of every CYCLE positions set k has the share weight k / sum of weights.

    A set's own positions come in order, so that each of its samples comes once in each epoch of that set. A set alone
    keeps its positions as they are.

    With L = `num_lanes` (see LaneOrder) all this holds for each lane, the positions P of the same P mod L: what lane c
    takes of a set are that set's positions c, c + L, c + 2 L, ... So a rank that has some lanes of the stream has the
    same lanes of each set. The lanes walk through the same cycles, each beginning at another place.
    """

    def __init__(self, weights: Sequence[float], seed: int, num_lanes: int = 1) -> None:
        self.seed = seed
        self.num_lanes = num_lanes
        self.counts = apportioned(weights)
        self.layout = lru_cache(maxsize=4)(self.cycle_layout)  # a batch or two lie in few cycles
        self.starts = np.arange(num_lanes) * CYCLE // num_lanes  # the slot of cycle 0 that a lane begins at
        self.skipped = self.slots_before(self.starts)

    def split(self, positions: Integers) -> tuple[Integers, Integers]:
        """For each global position the number of the set, and the position in the endless order of that set."""
        sets, own_positions = np.zeros_like(positions), positions.copy()
        if len(self.counts) > 1:
            turns, lanes = np.divmod(positions, self.num_lanes)
            cycles, slots = np.divmod(turns + self.starts[lanes], CYCLE)
            for cycle in np.unique(cycles).tolist():
                rows = np.flatnonzero(cycles == cycle)
                sets_of_slots, ranks = self.layout(cycle)
                sets[rows] = sets_of_slots[slots[rows]]
                own_turns = cycle * self.counts[sets[rows]] + ranks[slots[rows]] - self.skipped[sets[rows], lanes[rows]]
                own_positions[rows] = own_turns * self.num_lanes + lanes[rows]
        return sets, own_positions

    def length(self, num_samples: Sequence[int], epochs: int) -> int:
        """The number of positions after which sets of so many samples have all had `epochs` whole epochs."""
        if len(self.counts) == 1:
            return epochs * num_samples[0]
        shares = zip(num_samples, self.counts.tolist(), strict=True)
        cycles = [-(-epochs * size // (count * self.num_lanes)) for size, count in shares]
        partial = self.num_lanes > 1  # a lane that begins in the middle of a cycle ends in the middle of one
        return (max(cycles) + partial) * CYCLE * self.num_lanes

    def slots_before(self, slots: Integers) -> Integers:
        """(sets, slots): how many slots before these are of each set, in cycle 0."""
        if len(self.counts) == 1:
            return slots[None]
        sets, _ = self.layout(0)
        return np.stack([np.cumsum(sets == number) - (sets == number) for number in range(len(self.counts))])[:, slots]

    def cycle_layout(self, cycle: int) -> tuple[Integers, Integers]:
        """For each slot of a cycle its set, and how many slots before it are of that set."""
        places = permuted(np.arange(CYCLE), CYCLE, self.seed, cycle, "mixture")
        sets = np.repeat(np.arange(len(self.counts)), self.counts)[places]
        ranks = np.empty_like(sets)
        for number, count in enumerate(self.counts.tolist()):
            ranks[sets == number] = np.arange(count)
        return sets, ranks


def apportioned(weights: Sequence[float]) -> Integers:
    """CYCLE positions shared out by weight: what is left after rounding down goes to the largest remainders."""
    shares = np.array(weights, np.float64) / np.sum(weights) * CYCLE
    counts = np.floor(shares).astype(np.int64)
    largest = np.argsort(counts - shares, kind="stable")[: CYCLE - int(counts.sum())]
    counts[largest] += 1
    if not counts.all():
        raise UserError(f"data.mixture: weight {min(weights):g} is less than {1 / CYCLE:g} of all; leave that set out")
    return counts
