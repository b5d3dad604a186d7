"""Which sample stands at which global position, with which caption: pure functions of (seed, epoch, position).

The stream of positions is endless; epoch e holds the positions e * N .. (e + 1) * N - 1, each sample once. Nothing is
stored: any position is found at once, at any rank count. numpy only, vectorised.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ifvit.runtime.seeding import derived_seed

FEISTEL_ROUNDS = 6  # three rounds fail uniformity tests
Integers = NDArray[np.int64]
Words = NDArray[np.uint64]


def hashed(key: int, counters: Integers) -> Words:
    """Output number `counters` (each >= 0) of the splitmix64 generator that is seeded with `key`."""
    word = np.uint64(key) + (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def uniform(key: int, counters: Integers) -> NDArray[np.float64]:
    """Numbers in [0, 1), one for each counter."""
    return (hashed(key, counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permuted(positions: Integers, size: int, seed: int, epoch: int, stream: str = "order") -> Integers:
    """Where a permutation of 0..size-1, chosen by (seed, stream, epoch), sends `positions`.

    A Feistel network permutes the pairs of Z_a x Z_a with a * a >= size; what falls outside 0..size-1 walks on along
    its cycle until it is inside, which keeps it a permutation.
    """
    side = math.isqrt(size - 1) + 1
    keys = [derived_seed(seed, stream, epoch, number) for number in range(FEISTEL_ROUNDS)]
    result = positions.astype(np.int64)
    outside = np.arange(len(result))
    while len(outside):
        left, right = np.divmod(result[outside], side)
        for key in keys:
            mixed = (hashed(key, right) % np.uint64(side)).astype(np.int64)
            left, right = right, (left + mixed) % side
        result[outside] = left * side + right
        outside = outside[result[outside] >= size]
    return result


class SampleOrder:
    """The order of `num_samples` samples for one seed."""

    def __init__(self, num_samples: int, seed: int) -> None:
        self.num_samples = num_samples
        self.seed = seed

    def epochs(self, positions: Integers) -> Integers:
        return positions // self.num_samples

    def samples(self, positions: Integers) -> Integers:
        """Sample indices 0..num_samples-1 at global `positions` (each >= 0)."""
        result = np.empty_like(positions)
        epochs = self.epochs(positions)
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            result[rows] = permuted(positions[rows] % self.num_samples, self.num_samples, self.seed, int(epoch))
        return result

    def caption_choices(self, positions: Integers, samples: Integers, num_captions: Integers) -> Integers:
        """For each row a caption 0..num_captions-1, uniform, drawn again in each epoch."""
        return np.minimum((self.draws("caption", positions, samples) * num_captions).astype(np.int64), num_captions - 1)

    def is_dropped(self, positions: Integers, samples: Integers, caption_dropout_prob: float) -> NDArray[np.bool_]:
        """True where the caption gives way to the null condition at this visit."""
        return self.draws("caption dropout", positions, samples) < caption_dropout_prob

    def draws(self, stream: str, positions: Integers, samples: Integers) -> NDArray[np.float64]:
        """One number in [0, 1) per row: a function of (seed, stream, epoch, sample)."""
        result = np.empty(len(positions), np.float64)
        epochs = self.epochs(positions)
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            result[rows] = uniform(derived_seed(self.seed, stream, int(epoch)), samples[rows])
        return result
