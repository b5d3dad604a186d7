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
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        self.seed = seed
        self.counts = apportioned(weights)
        self.layout = lru_cache(maxsize=4)(self.cycle_layout)  # a batch or two lie in few cycles

    def split(self, positions: Integers) -> tuple[Integers, Integers]:
        """For each global position the number of the set, and the position in the endless order of that set."""
        sets, own_positions = np.zeros_like(positions), positions.copy()
        if len(self.counts) > 1:
            cycles, slots = np.divmod(positions, CYCLE)
            for cycle in np.unique(cycles).tolist():
                rows = cycles == cycle
                sets_of_slots, ranks = self.layout(cycle)
                sets[rows] = sets_of_slots[slots[rows]]
                own_positions[rows] = cycle * self.counts[sets[rows]] + ranks[slots[rows]]
        return sets, own_positions

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
