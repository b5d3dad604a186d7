"""ifvit/data/lane_order.py and row_permutation.py"""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from ifvit.data.lane_order import LaneOrder, rank_positions
from ifvit.data.order import hashed
from ifvit.data.row_permutation import permuted_rows

SEED = 1234
UNEVEN = [7, 0, 100, 1, 33, 0, 0, 64, 99, 100, 3]
SHAPES = [  # sizes of the shards, number of lanes, window
    ([50] * 20, 8, None),
    ([50] * 20, 7, None),
    (UNEVEN, 4, None),
    (UNEVEN, 4, 10),
    (UNEVEN, 64, 3),
    ([1000], 4, None),  # one shard
    ([100] * 3 + [17], 16, None),  # fewer shards than lanes
    ([3, 2], 8, None),  # fewer samples than lanes
    ([1], 64, None),
    ([5] * 10, 1, 7),
    ([10] * 32, 4, 1),  # not shuffled within a lane
    ([1] * 97, 5, 1000),  # a window larger than all
]


def epoch_of(order: LaneOrder, epoch: int) -> NDArray[np.int64]:
    return order.samples(np.arange(order.num_samples) + epoch * order.num_samples)


def shards_of(sizes: list[int], samples: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.searchsorted(np.cumsum(sizes), samples, side="right")


@pytest.mark.parametrize("sizes, num_lanes, window", SHAPES)
def test_every_epoch_holds_each_sample_once(sizes: list[int], num_lanes: int, window: int | None) -> None:
    order = LaneOrder(sizes, SEED, num_lanes, window)
    assert order.num_samples == sum(sizes)
    for epoch in (0, 1, 2, 1_000_000):
        assert np.array_equal(np.sort(epoch_of(order, epoch)), np.arange(sum(sizes))), epoch


def test_random_shapes_hold_each_sample_once() -> None:
    generator = np.random.default_rng(0)
    for _ in range(150):
        sizes = generator.integers(0, generator.integers(2, 40), generator.integers(1, 30))
        if sizes.sum():
            window = int(generator.integers(0, 50)) or None
            order = LaneOrder(sizes, SEED, int(generator.integers(1, 40)), window)
            epoch = int(generator.integers(0, 100))
            assert np.array_equal(np.sort(epoch_of(order, epoch)), np.arange(sizes.sum()))


def test_positions_may_straddle_epochs_and_come_in_any_pieces_and_order() -> None:
    order = LaneOrder(UNEVEN, SEED, 8)
    positions = np.random.default_rng(0).permutation(3000)
    whole = order.samples(positions)
    pieces = [LaneOrder(UNEVEN, SEED, 8).samples(positions[start : start + 77]) for start in range(0, 3000, 77)]
    assert np.array_equal(whole, np.concatenate(pieces))
    assert order.samples(positions[-1:]) == whole[-1]
    assert order.samples(positions[:0]).tolist() == []


def test_order_changes_with_epoch_and_seed_and_is_no_identity() -> None:
    sizes = [100] * 30
    order = LaneOrder(sizes, SEED, 8)
    first = epoch_of(order, 0)
    for other in (epoch_of(order, 1), epoch_of(LaneOrder(sizes, SEED + 1, 8), 0), np.arange(3000)):
        assert (first == other).mean() < 0.01
    assert np.array_equal(first, epoch_of(LaneOrder(sizes, SEED, 8), 0))


def test_blocks_within_a_lane_are_shuffled_each_in_its_own_way() -> None:
    order = LaneOrder([400], SEED, 1, 100)  # one shard: the line is 0..399, closed
    places = (epoch_of(order, 0) - order.line(0).rotation) % 400
    blocks = places.reshape(4, 100) - np.arange(0, 400, 100)[:, None]
    assert np.array_equal(np.sort(blocks), np.tile(np.arange(100), (4, 1)))
    for block in range(4):
        assert abs(np.corrcoef(blocks[block], np.arange(100))[0, 1]) < 0.3
        assert (blocks[block] == blocks[block - 1]).mean() < 0.1


def test_shards_stand_in_a_new_order_each_epoch() -> None:
    order = LaneOrder([1] * 200, SEED, 1, 1)
    lines = [epoch_of(order, epoch) for epoch in range(3)]
    assert all(abs(np.corrcoef(line, np.arange(200))[0, 1]) < 0.25 for line in lines)
    assert not np.array_equal(lines[0], lines[1])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9, 10, 1000])
def test_every_row_has_a_permutation(size: int) -> None:
    numbers = np.tile(np.arange(size), 3)
    keys = np.repeat(hashed(SEED, np.arange(3)), size)
    moved = permuted_rows(numbers, np.full(3 * size, size), keys).reshape(3, size)
    assert np.array_equal(np.sort(moved), np.tile(np.arange(size), (3, 1)))
    assert size < 10 or not np.array_equal(moved[0], moved[1])


def test_every_number_is_equally_likely_at_every_place() -> None:
    size, count = 11, 2200
    keys = np.repeat(hashed(SEED, np.arange(count)), size)
    numbers = np.tile(np.arange(size), count)
    counts = np.zeros((size, size))
    np.add.at(counts, (numbers, permuted_rows(numbers, np.full(size * count, size), keys)), 1)
    chi_square = ((counts - count / size) ** 2 / (count / size)).sum()
    assert 60 < chi_square < 150  # 100 degrees of freedom: standard deviation 14


def test_neighbours_are_independent() -> None:
    size, count = 1009, 40
    keys = np.repeat(hashed(SEED, np.arange(count)), size)
    moved = permuted_rows(np.tile(np.arange(size), count), np.full(size * count, size), keys).reshape(count, size)
    counts = np.bincount((np.diff(moved) % size).ravel(), minlength=size)[1:]
    expected = counts.sum() / (size - 1)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - (size - 2)) < 5 * np.sqrt(2 * (size - 2))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8, 24])
def test_the_ranks_rows_are_those_of_the_global_batch(world_size: int) -> None:
    order = LaneOrder(UNEVEN, SEED, 8)
    for step in (0, 3, 16, 17, 50):  # epochs have 407 samples
        parts = [rank_positions(step, 24, rank, world_size) for rank in range(world_size)]
        assert {len(part) for part in parts} == {24 // world_size}
        positions = np.concatenate(parts)
        assert np.array_equal(np.sort(positions), np.arange(step * 24, (step + 1) * 24))
        together = np.concatenate([order.samples(part) for part in parts])
        assert np.array_equal(together[np.argsort(positions)], order.samples(np.sort(positions)))


@pytest.mark.parametrize("global_batch_size", [8, 24, 64])
def test_a_rank_takes_whole_lanes_where_the_ranks_divide_them(global_batch_size: int) -> None:
    for rank in range(4):
        for step in range(30):
            assert set(rank_positions(step, global_batch_size, rank, 4) % 16 % 4) == {rank}


@pytest.mark.parametrize("world_size", [1, 2, 8, 3])
@pytest.mark.parametrize("sizes, num_lanes, window", SHAPES)
def test_upcoming_shards_are_those_of_the_positions(
    sizes: list[int], num_lanes: int, window: int | None, world_size: int
) -> None:
    order = LaneOrder(sizes, SEED, num_lanes, window)
    for rank in range(world_size):
        for first, stop in ((0, 1), (sum(sizes) - 1, sum(sizes) + 2), (5, 5 + 3 * sum(sizes)), (1000, 1300)):
            upcoming = order.upcoming_shards(first, stop, rank, world_size).tolist()
            positions = np.arange(first, stop)
            own = order.samples(positions[positions % world_size == rank])
            assert set(shards_of(sizes, own)) <= set(upcoming)
            assert len(set(upcoming)) == len(upcoming) and set(upcoming) <= set(np.flatnonzero(sizes))


def test_upcoming_shards_come_in_the_order_of_need() -> None:
    sizes = [50] * 200
    order = LaneOrder(sizes, SEED, 8)
    first, stop = 4000, 9000
    upcoming = order.upcoming_shards(first, stop, 1, 2).tolist()
    positions = np.arange(first + 1, stop, 2)
    shards = shards_of(sizes, order.samples(positions))
    needed_at = {shard: positions[shards == shard][0] for shard in set(shards)}
    rows = [needed_at[shard] for shard in upcoming if shard in needed_at]
    # A block begins with any of its shards: no shard comes later in the list than its block asks for.
    assert all(later >= earlier - 8 * order.window for earlier, later in itertools.pairwise(rows))
    assert np.corrcoef(rows, np.arange(len(rows)))[0, 1] > 0.9
    assert len(set(upcoming) - set(shards)) <= 0.1 * len(upcoming)


@pytest.mark.parametrize("sizes", [[50] * 199 + [1], np.random.default_rng(0).integers(30, 100, 300).tolist()])
@pytest.mark.parametrize("world_size", [1, 4])
def test_few_shards_are_in_use_at_a_time(sizes: list[int], world_size: int) -> None:
    order = LaneOrder(sizes, SEED, 8)
    bound = order.max_bytes_in_use(np.ones(len(sizes)), world_size)
    in_use = [
        len(order.upcoming_shards(position, position + 8, rank, world_size))
        for position in range(0, 3 * order.num_samples, 97)
        for rank in range(world_size)
    ]
    assert bound / 4 < max(in_use) <= bound


def test_a_rank_needs_only_the_shards_of_its_lanes() -> None:
    sizes = [50] * 400
    order = LaneOrder(sizes, SEED, 8)
    shards = shards_of(sizes, epoch_of(order, 0))
    by_rank = [set(shards[rank::4]) for rank in range(4)]
    assert set.union(*by_rank) == set(range(400))
    assert sum(map(len, by_rank)) <= 400 + 8  # one more for each border of two lanes


def test_a_lane_begins_elsewhere_in_each_epoch() -> None:
    """Also where there is one shard only, a lane does not have the same samples again."""
    order = LaneOrder([1000], SEED, 8)
    assert len({order.line(epoch).rotation for epoch in range(20)}) == 20
    lanes = [set(epoch_of(order, epoch)[3::8].tolist()) for epoch in range(8)]
    assert np.mean([len(lane & lanes[0]) for lane in lanes[1:]]) < 50  # of 125


def test_new_shards_are_needed_at_an_even_rate() -> None:
    """Not all lanes begin a block at the same time."""
    order = LaneOrder([100] * 2000, SEED, 16)
    starts = [set(order.upcoming_shards(first, first + 100).tolist()) for first in range(50_000, 60_000, 100)]
    new = [len(later - earlier) for earlier, later in itertools.pairwise(starts)]
    assert max(new) <= 8 and sum(new) == pytest.approx(100, abs=25)


@pytest.mark.parametrize("num_rows", [16, 64, 1024])
@pytest.mark.parametrize("num_lanes, per_shard, window", [(8, 50, None), (8, 50, 20), (16, 10, None), (4, 300, 7)])
def test_the_shards_of_a_batch_are_within_the_bound(
    num_lanes: int, per_shard: int, window: int | None, num_rows: int
) -> None:
    """At any place, also where an epoch ends in it."""
    order = LaneOrder([per_shard] * 200 + [3], SEED, num_lanes, window)
    bound = order.max_bytes_in_use(np.ones(201), 1, num_rows)
    firsts = [*range(0, order.num_samples, 61), *range(order.num_samples - num_rows, order.num_samples, 7)]
    found = [
        len(np.unique(shards_of([per_shard] * 200 + [3], order.samples(np.arange(first, first + num_rows)))))
        for first in firsts
    ]
    assert bound / 6 < max(found) <= bound


def test_another_number_of_lanes_changes_nothing_else() -> None:
    for window in (None, 9):
        other = LaneOrder(UNEVEN, SEED, 8, window).with_lanes(4)
        positions = np.arange(1000)
        assert np.array_equal(other.samples(positions), LaneOrder(UNEVEN, SEED, 4, window).samples(positions))


@pytest.mark.parametrize("sizes", [[1] * 300 + [5000] * 3, [5000, *[0] * 50, *[1] * 50, 0], [3] * 1000 + [1]])
def test_the_shard_of_a_place_is_found_whatever_the_sizes(sizes: list[int]) -> None:
    line = LaneOrder(sizes, SEED, 4).line(3)
    places = np.random.default_rng(0).permutation(sum(sizes))
    indices = line.indices(places)
    assert (line.starts[indices] <= places).all() and (places < line.starts[indices + 1]).all()


def test_the_bound_counts_bytes() -> None:
    order = LaneOrder([50] * 100, SEED, 8)
    assert order.max_bytes_in_use([1000] * 100) == 8 * 3 * 1000
    assert order.max_bytes_in_use([1000] * 100, world_size=4) == 2 * 3 * 1000
    with_small_last_shard = LaneOrder([50] * 99 + [2], SEED, 8)
    assert with_small_last_shard.max_bytes_in_use([1000] * 99 + [40]) == 8 * 3 * 1000 + 40
    assert order.max_bytes_in_use([1000] * 100, world_size=3) == 8 * 3 * 1000  # which do not divide the lanes
    assert LaneOrder([50] * 10, SEED, 8).max_bytes_in_use([1000] * 10) == 10_000  # there are no more


def test_captions_and_dropout_do_not_depend_on_the_order() -> None:
    """They are functions of (seed, epoch, sample)."""
    order = LaneOrder(UNEVEN, SEED, 4)
    positions = np.arange(407)
    samples = order.samples(positions)
    choices = order.caption_choices(positions, samples, np.full(407, 5))
    assert np.array_equal(choices[np.argsort(samples)], order.caption_choices(positions, positions, np.full(407, 5)))
