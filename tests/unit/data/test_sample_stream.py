"""ifvit/data/sample_stream.py"""

import threading

import numpy as np
import pytest

from ifvit.data.lane_order import LaneOrder
from ifvit.data.sample_stream import RankVisits, SampleStream, Visits

SEED, BATCH = 1234, 48


def stream_of(has_lanes: tuple[bool, ...] = (False, True)) -> SampleStream:
    sizes = [np.full(30, 100), np.array([200, 7, 0, 993])][: len(has_lanes)]
    return SampleStream.of(sizes, (2.0, 1.0)[: len(has_lanes)], SEED, BATCH, 8, has_lanes)


def assert_equal(found: Visits, expected: Visits) -> None:
    for name, column in vars(expected).items():
        assert np.array_equal(getattr(found, name), column), name


@pytest.mark.parametrize("rank, world_size", [(0, 1), (1, 4), (47, 48)])
def test_a_rank_s_visits_are_those_of_its_positions_in_any_order(rank: int, world_size: int) -> None:
    stream = stream_of()
    visits = RankVisits(stream, rank, world_size)
    for step in (0, 1, 85, 84, 86, 5000, 4999, 0, 10**7):
        assert_equal(visits.of(step), stream.visits(stream.rank_positions(step, rank, world_size)))


def test_several_threads_may_ask() -> None:
    stream = stream_of()
    visits = RankVisits(stream, 0, 2)
    faults: list[Exception | AssertionError] = []

    def ask(first: int) -> None:
        try:
            for step in range(first, 600, 3):
                assert_equal(visits.of(step), stream.visits(stream.rank_positions(step, 0, 2)))
        except (Exception, AssertionError) as error:
            faults.append(error)

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_only_sets_that_are_fetched_have_lanes() -> None:
    assert [isinstance(order, LaneOrder) for order in stream_of().orders] == [False, True]
    assert stream_of((False, False)).mixture.num_lanes == 1
    assert stream_of().mixture.num_lanes == 8


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_in_a_mixture_too_a_rank_stays_in_its_lanes(world_size: int) -> None:
    stream = stream_of()
    for rank in range(world_size):
        visits = RankVisits(stream, rank, world_size)
        for step in (0, 7, 1000):
            own = visits.of(step).own_positions
            assert set(own % world_size) == {rank}


def test_sets_of_a_mixture_are_shuffled_each_in_its_own_way() -> None:
    sizes = [np.full(10, 100)] * 2
    one, other = SampleStream.of(sizes, (1.0, 1.0), SEED, BATCH).orders
    positions = np.arange(1000)
    assert (one.samples(positions) == other.samples(positions)).mean() < 0.02
