"""Which sample stands at which global position, with which caption: pure functions of (seed, epoch, position).

The stream of positions is endless; epoch e holds the positions e * N .. (e + 1) * N - 1, each sample once. Nothing is
stored: any position is found at once, at any rank count. numpy only, vectorised.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ifvit.runtime.seeding import derived_seed

FEISTEL_ROUNDS = 6  # three rounds fail uniformity tests
Integers = NDArray[np.int64]
Words = NDArray[np.uint64]


def hashed(key: int, counters: Integers | Words) -> Words:
    """Output number `counters` (each >= 0) of the splitmix64 generator that is seeded with `key`."""
    word = counters.astype(np.uint64)
    word += np.uint64(1)
    word *= np.uint64(0x9E3779B97F4A7C15)
    word += np.uint64(key)
    shifted = word >> np.uint64(30)
    word ^= shifted
    word *= np.uint64(0xBF58476D1CE4E5B9)
    word ^= np.right_shift(word, np.uint64(27), out=shifted)
    word *= np.uint64(0x94D049BB133111EB)
    word ^= np.right_shift(word, np.uint64(31), out=shifted)
    return word


def uniform(key: int, counters: Integers) -> NDArray[np.float64]:
    """Numbers in [0, 1), one for each counter."""
    return (hashed(key, counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permuted(positions: Integers, size: int, seed: int, epoch: int, stream: str = "order") -> Integers:
    """Where a permutation of 0..size-1, chosen by (seed, stream, epoch), sends `positions`.

    A Feistel network permutes the pairs of Z_a x Z_a with a * a >= size; what falls outside 0..size-1 walks on along
    its cycle until it is inside, which keeps it a permutation.
    """
    side = np.uint64(math.isqrt(size - 1) + 1)
    keys = [derived_seed(seed, stream, epoch, number) for number in range(FEISTEL_ROUNDS)]
    result = feistel(positions.astype(np.uint64), side, keys)
    outside = np.flatnonzero(result >= size)
    while len(outside):
        result[outside] = feistel(result[outside], side, keys)
        outside = outside[result[outside] >= size]
    return result.astype(np.int64)


def feistel(numbers: Words, side: np.uint64, keys: Sequence[int]) -> Words:
    """One round for each key: a permutation of 0..side^2-1. In place, as its time is that of memory."""
    left = numbers // side
    right = numbers - left * side
    for key in keys:
        mixed = hashed(key, right)
        mixed -= mixed // side * side  # modulo side, which takes numpy three times as long
        mixed += left
        left, right = right, np.minimum(mixed, mixed - side)  # below 0 the difference wraps to a huge one
    return left * side + right


def distinct(epochs: Integers) -> list[int]:
    """The epochs of a batch, of which there are few, mostly one after the other."""
    return np.unique(epochs[np.flatnonzero(np.diff(epochs, prepend=-1))]).tolist()


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
        for epoch in distinct(epochs):
            rows = epochs == epoch
            result[rows] = permuted(positions[rows] % self.num_samples, self.num_samples, self.seed, epoch)
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
        for epoch in distinct(epochs):
            rows = epochs == epoch
            result[rows] = uniform(derived_seed(self.seed, stream, epoch), samples[rows])
        return result
