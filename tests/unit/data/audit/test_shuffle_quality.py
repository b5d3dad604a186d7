"""ifvit/data/audit/shuffle_quality.py: what is expected of a random permutation, against exact counts and draws."""

import math

import numpy as np
import pytest

from ifvit.data.audit.audited_shards import AuditedShards
from ifvit.data.audit.shuffle_quality import BatchShards, BlockCounts, NeighbourCounts, missing_probability


@pytest.mark.parametrize(
    "size, marked, drawn", [(10, 3, 4), (10, 4, 3), (10, 6, 5), (10, 10, 1), (50, 0, 5), (9, 5, 4)]
)
def test_the_chance_to_miss_a_shard(size: int, marked: int, drawn: int) -> None:
    expected = math.comb(size - marked, drawn) / math.comb(size, drawn)
    assert missing_probability(size, marked, drawn) == pytest.approx(expected, abs=1e-12)


def shards_of(sizes: list[int]) -> AuditedShards:
    counts = np.array(sizes)
    return AuditedShards("drawn", counts, counts, 1, 1, lambda samples: samples, 0)


@pytest.mark.parametrize("sizes, num_rows", [([10] * 30, 20), ([5, 80, 15, 200, 0, 1, 99], 12), ([50] * 40, 300)])
def test_the_number_of_shards_in_a_batch(sizes: list[int], num_rows: int) -> None:
    shards, random = shards_of(sizes), np.random.default_rng(0)
    numbers = [len(np.unique(shards.shards_of(random.permutation(shards.num_samples)[:num_rows]))) for _ in range(4000)]
    mean, variance = BatchShards(shards).expected(num_rows)
    assert mean == pytest.approx(np.mean(numbers), abs=5 * math.sqrt(variance / 4000))
    assert variance == pytest.approx(np.var(numbers), rel=0.15)


@pytest.mark.parametrize("num_looked_at", [2000, 1000, 100])
def test_what_a_chi_square_of_a_part_is_expected_to_be(num_looked_at: int) -> None:
    random, found, expected = np.random.default_rng(0), [], []
    for _ in range(300):
        blocks = BlockCounts(2000, 2000)
        positions = random.choice(2000, num_looked_at, replace=False)
        blocks.add(positions, random.permutation(2000)[positions])
        chi_square, degrees = blocks.chi_square()
        found.append(chi_square)
        expected.append(degrees)
    assert blocks.num_blocks == 10
    assert np.mean(found) == pytest.approx(np.mean(expected), abs=5 * math.sqrt(2 * np.mean(expected) / 300))


@pytest.mark.parametrize("sizes, are_even", [([7, 7, 7, 3], True), ([7, 3, 0, 14], False), ([7, 7, 10], False)])
def test_shards_are_found_by_division_or_by_search(sizes: list[int], are_even: bool) -> None:
    shards = shards_of(sizes)
    assert shards.are_even == are_even
    assert shards.shards_of(np.arange(24)).tolist() == np.repeat(np.arange(len(sizes)), sizes).tolist()


def test_a_sample_is_never_at_no_distance_from_the_next() -> None:
    counts = NeighbourCounts(shards_of([500] * 4), 40_000)
    random = np.random.default_rng(0)
    for _ in range(20):
        samples = random.permutation(2000)
        counts.add(samples, samples // 500)
    assert counts.num_strides == 2000
    check = counts.stride_check()
    assert (check.verdict, check.expected) == ("pass", "1,998")  # degrees of freedom of 1,999 distances
