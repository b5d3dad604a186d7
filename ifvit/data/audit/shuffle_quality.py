"""How well an order mixes, in numbers whose distribution under a uniformly random permutation is known.

N samples, n of which were looked at. Each class collects its counts chunk by chunk and gives its checks at the end.
"""

import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from ifvit.data.audit.audited_shards import AuditedShards
from ifvit.data.audit.check import Check, chance_check, chi_square_check, count_z, not_judged
from ifvit.data.order import Integers

MIN_EXPECTED = 20  # counts per cell; with less, a chi-square is not near its limit
MAX_BLOCKS = 64  # on each side
MAX_STRIDES = 4096
MIN_PAIRS = 1000


class BlockCounts:
    """Every part of the data comes equally often in every part of the epoch: counts by (part of epoch, part of data).

    X^2 = sum (count - expected)^2 / expected. Row i of the table has n_i positions; its counts are hypergeometric with
    variance n_i p (1 - p) (N - n_i) / (N - 1), so E[X^2] = (B - 1) (R N - n) / (N - 1) for R rows and B columns: the
    usual (R - 1) (B - 1) where all of an epoch was looked at. Too even is a failure as well: z is then negative.
    """

    name = "all data at all times of an epoch"

    def __init__(self, num_samples: int, num_expected: int) -> None:
        self.num_samples = num_samples
        self.num_blocks = min(MAX_BLOCKS, math.isqrt(num_expected // MIN_EXPECTED))
        self.counts = np.zeros((max(self.num_blocks, 1),) * 2, np.int64)

    def add(self, epoch_positions: Integers, samples: Integers) -> None:
        """`epoch_positions` are counted from the epoch's start."""
        if self.num_blocks < 2:
            return
        rows, columns = (part * self.num_blocks // self.num_samples for part in (epoch_positions, samples))
        cells = np.bincount(rows * self.num_blocks + columns, minlength=self.counts.size)
        self.counts += cells.reshape(self.counts.shape)

    def chi_square(self) -> tuple[float, float]:
        """X^2 and its expectation."""
        size, blocks = self.num_samples, self.num_blocks
        edges = -(-np.arange(blocks + 1) * size // blocks)
        rows = self.counts[self.counts.any(axis=1)]
        expected = rows.sum(axis=1, keepdims=True) * np.diff(edges) / size
        degrees = (blocks - 1) * (len(rows) * size - int(rows.sum())) / (size - 1)
        return float(((rows - expected) ** 2 / expected).sum()), degrees


def block_check(epochs: list[BlockCounts]) -> Check:
    """The tables of several epochs as one."""
    blocks = epochs[0].num_blocks
    if blocks < 2 or not all(counts.counts.any() for counts in epochs):
        return not_judged(BlockCounts.name, "too few samples")
    chi_squares, degrees = zip(*(counts.chi_square() for counts in epochs), strict=True)
    cells = f"{blocks} x {blocks} parts" + f" in {len(epochs)} epochs" * (len(epochs) > 1)
    return chi_square_check(BlockCounts.name, sum(chi_squares), sum(degrees), cells)


class NeighbourCounts:
    """A row says nothing about the next one: not how far on it lies, nor on which side, nor its shard."""

    strides_name = "distance from a sample to the next"
    correlation_name = "correlation of a sample with the next"
    shard_name = "next sample from the same shard"

    def __init__(self, shards: AuditedShards, num_expected: int) -> None:
        self.shards = shards
        self.num_samples = shards.num_samples
        self.num_strides = min(MAX_STRIDES, num_expected // MIN_EXPECTED, self.num_samples)
        self.strides = np.zeros(max(self.num_strides, 1), np.int64)
        self.num_pairs = 0
        self.product_sum = 0.0
        self.num_same_shard = 0

    def add(self, samples: Integers, shards: Integers) -> None:
        """`samples` follow one another; `shards` are those they are in."""
        size = self.num_samples
        if self.num_strides < 2 or len(samples) < 2:
            return
        bins = (np.diff(samples) % size) * self.num_strides // size
        self.strides += np.bincount(bins, minlength=self.num_strides)
        centred = (samples - (size - 1) / 2) / size
        self.product_sum += float(centred[1:] @ centred[:-1])
        self.num_same_shard += int((shards[1:] == shards[:-1]).sum())
        self.num_pairs += len(samples) - 1

    def checks(self) -> list[Check]:
        names = [self.strides_name, self.correlation_name, self.shard_name]
        if self.num_pairs < MIN_PAIRS:
            return [not_judged(name, "too few samples") for name in names]
        return [self.stride_check(), self.correlation_check(), self.shard_check()]

    def stride_check(self) -> Check:
        """The distance modulo N is one of 1 .. N - 1, all equally likely."""
        size, bins = self.num_samples, self.num_strides
        widths = np.diff(-(-np.arange(bins + 1) * size // bins))
        widths[0] -= 1  # no distance of 0
        expected = self.num_pairs * widths / (size - 1)
        likely = expected > 0
        chi_square = float(((self.strides - expected)[likely] ** 2 / expected[likely]).sum())
        return chi_square_check(self.strides_name, chi_square, int(likely.sum()) - 1, f"{bins:,} distances")

    def correlation_check(self) -> Check:
        """Serial correlation: mean -1 / (N - 1), standard deviation 1 / sqrt(n)."""
        size = self.num_samples
        variance = (size**2 - 1) / 12 / size**2
        found, expected = self.product_sum / self.num_pairs / variance, -1 / (size - 1)
        z = (found - expected) * math.sqrt(self.num_pairs)
        return chance_check(self.correlation_name, z, f"correlation {found:+.6f}", f"{expected:+.6f}")

    def shard_check(self) -> Check:
        """Binomial, with probability sum m (m - 1) / (N (N - 1)) over shards of m samples."""
        counts = self.shards.num_samples_of.astype(np.float64)
        if len(counts) < 2:
            return not_judged(self.shard_name, "there is one shard")
        size = self.num_samples
        probability = float((counts * (counts - 1)).sum()) / size / (size - 1)
        z = count_z(self.num_same_shard, self.num_pairs, probability)
        found = f"{self.num_same_shard:,} of {self.num_pairs:,}"
        return chance_check(self.shard_name, z, found, f"{self.num_pairs * probability:,.1f}")


class BatchShards:
    """How many different shards a global batch mixes.

    n rows drawn from N samples miss a shard of m samples with probability q = C(N - m, n) / C(N, n), and K - sum q
    shards are expected. Given n, the variance of that number is sum q (1 - q) - (f sum m q)^2 / (N f (1 - f)) with
    f = n / N: what independent draws of each sample would give, less what their number n explains.
    """

    name = "different shards in a global batch"

    def __init__(self, shards: AuditedShards) -> None:
        self.shards = shards
        self.batch_sizes: Counter[int] = Counter()  # rows to number of batches with so many rows of this set
        self.num_found = 0

    def add(self, steps: Integers, shards: Integers) -> None:
        """One row for each visit: the step of its global batch, and its shard."""
        if self.shards.num_shards < 2 or not len(steps):
            return
        first = int(steps[0])
        pairs = np.sort((steps - first) * self.shards.num_shards + shards)
        self.num_found += 1 + int((pairs[1:] != pairs[:-1]).sum())
        self.batch_sizes.update(np.bincount(steps - first).tolist())

    def check(self) -> Check:
        if self.shards.num_shards < 2:
            return not_judged(self.name, "there is one shard")
        num_batches = self.batch_sizes.total()
        if not num_batches:
            return not_judged(self.name, "no samples")
        moments = [(count, *self.expected(size)) for size, count in self.batch_sizes.items()]
        expected = sum(count * mean for count, mean, _ in moments)
        variance = sum(count * variance for count, _, variance in moments)
        missed = num_batches * self.shards.num_shards - np.array([self.num_found, expected])
        # Through the square root: where hardly any shard is missed, the misses are a Poisson number.
        found_root, expected_root = np.sqrt(missed + 0.375)
        scale = math.sqrt(missed[1] / max(1.0, variance)) if missed[1] > 1 else 1.0
        z = 2 * float(expected_root - found_root) * scale
        found = f"{self.num_found / num_batches:,.3f} on average, of {self.shards.num_shards:,}"
        return chance_check(self.name, z, found, f"{expected / num_batches:,.3f}")

    def expected(self, num_rows: int) -> tuple[float, float]:
        """Mean and variance of the number of different shards among `num_rows` rows."""
        size = self.shards.num_samples
        if num_rows == 0:
            return 0.0, 0.0
        counts, repeats = np.unique(self.shards.num_samples_of, return_counts=True)
        missed = np.array([missing_probability(size, int(count), num_rows) for count in counts])
        share = num_rows / size
        variance = float(repeats @ (missed * (1 - missed)))
        if share < 1:
            variance -= (share * float(repeats @ (counts * missed))) ** 2 / (size * share * (1 - share))
        return self.shards.num_shards - float(repeats @ missed), max(variance, 0.0)


def missing_probability(size: int, num_marked: int, num_drawn: int) -> float:
    """C(size - num_marked, num_drawn) / C(size, num_drawn), as a product of its shorter side."""
    short, long = sorted((num_marked, num_drawn))
    if short + long > size:
        return 0.0
    factors: NDArray[np.float64] = np.log1p(-long / (size - np.arange(short)))
    return math.exp(float(factors.sum()))
