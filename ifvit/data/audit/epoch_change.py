"""Is the next epoch's order unrelated to this one's?"""

import numpy as np

from ifvit.data.audit.check import Check, chi_square_check, exact_check, not_judged
from ifvit.data.order import Integers
from ifvit.data.sample_stream import Order

MAX_POSITIONS = 1_000_000
MAX_DIFFERENCES = 1024
MIN_EXPECTED = 20  # positions per bin
MIN_WINDOWS = 100  # of an order in lanes: with fewer, places may be the same by chance


class EpochChange:
    """At equal places of two epochs in a row, the difference of the samples modulo N is uniform over 0 .. N - 1.

    The same order again, or the same shifted through the data, has one difference only. Looks at the first
    MAX_POSITIONS positions that it is given.
    """

    name = "the next epoch has another order"

    def __init__(self, order: Order, num_expected: int) -> None:
        self.order = order
        self.num_bins = min(MAX_DIFFERENCES, min(num_expected, MAX_POSITIONS) // MIN_EXPECTED, order.num_samples)
        self.counts = np.zeros(max(self.num_bins, 1), np.int64)
        self.num_same = 0

    @property
    def is_done(self) -> bool:
        return self.num_bins < 2 or self.counts.sum() >= MAX_POSITIONS

    def add(self, own_positions: Integers, samples: Integers) -> None:
        size = self.order.num_samples
        differences = (self.order.samples(own_positions + size) - samples) % size
        self.counts += np.bincount(differences * self.num_bins // size, minlength=self.num_bins)
        self.num_same += int((differences == 0).sum())

    def check(self) -> Check:
        if not self.counts.any():
            return not_judged(self.name, "too few samples")
        size, bins, num_positions = self.order.num_samples, self.num_bins, int(self.counts.sum())
        expected = num_positions * np.diff(-(-np.arange(bins + 1) * size // bins)) / size
        chi_square = float(((self.counts - expected) ** 2 / expected).sum())
        return chi_square_check(
            self.name, chi_square, bins - 1, f"{self.num_same:,} of {num_positions:,} places the same"
        )

    def lane_check(self, window: int) -> Check:
        """For an order whose neighbours come from few shards, so that their differences are alike in any epoch."""
        if not self.counts.any() or self.order.num_samples < MIN_WINDOWS * window:
            return not_judged(self.name, "too few samples or shards")
        num_positions = int(self.counts.sum())
        found = f"{self.num_same:,} of {num_positions:,} places the same, must be under 1 in 20"
        return exact_check(self.name, self.num_same < num_positions / MIN_EXPECTED, found)
