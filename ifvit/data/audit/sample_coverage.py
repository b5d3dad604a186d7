"""Which samples of an epoch have come: a bit for each."""

import numpy as np

from ifvit.data.order import Integers

MASKS = np.left_shift(1, np.arange(8)).astype(np.uint8)


class SampleCoverage:
    """Filled by `add`, in any order and any pieces."""

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples
        self.num_visits = 0
        self.bits = np.zeros(-(-num_samples // 8), np.uint8)

    def add(self, samples: Integers) -> None:
        """`samples` have come; each is 0..num_samples-1."""
        np.bitwise_or.at(self.bits, samples >> 3, MASKS[samples & 7])
        self.num_visits += len(samples)

    @property
    def num_covered(self) -> int:
        """How many different samples have come."""
        return int(np.bitwise_count(self.bits).sum(dtype=np.int64))

    def missing(self, limit: int) -> list[int]:
        """The first samples that have not come, at most `limit`."""
        incomplete = np.flatnonzero(self.bits != 255)[: limit + 1]  # the last byte may be incomplete by design
        candidates = (incomplete[:, None] * 8 + np.arange(8)).ravel()
        has_come = (self.bits[candidates >> 3] & MASKS[candidates & 7]) != 0
        return [int(sample) for sample in candidates[~has_come] if sample < self.num_samples][:limit]
