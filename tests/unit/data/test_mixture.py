"""ifvit/data/mixture.py"""

import numpy as np
import pytest

from ifvit.config.errors import UserError
from ifvit.data.mixture import CYCLE, Mixture, apportioned


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (0.7, 0.2, 0.1), (1, 1, 1), (0.0002, 1)])
def test_every_cycle_has_the_shares_exactly_and_misses_no_position(weights: tuple[float, ...]) -> None:
    mixture = Mixture(weights, seed=3)
    sets, positions = mixture.split(np.arange(3 * CYCLE))
    for cycle in range(3):
        counts = np.bincount(sets[cycle * CYCLE : (cycle + 1) * CYCLE], minlength=len(weights))
        assert counts.sum() == CYCLE and np.abs(counts - np.array(weights) / sum(weights) * CYCLE).max() < 1
    for number in range(len(weights)):
        own = positions[sets == number]
        assert np.array_equal(own, np.arange(len(own)))  # in order: none twice, none missing


def test_it_is_a_function_of_seed_and_position() -> None:
    positions = np.random.default_rng(0).integers(0, 10**12, 1000)
    sets, inner = Mixture((2, 1), seed=1).split(positions)
    again = Mixture((2, 1), seed=1).split(positions[::-1])
    assert np.array_equal(sets, again[0][::-1]) and np.array_equal(inner, again[1][::-1])
    assert not np.array_equal(sets, Mixture((2, 1), seed=2).split(positions)[0])


def test_sets_alternate_irregularly() -> None:
    sets, _ = Mixture((1, 1), seed=0).split(np.arange(CYCLE))
    changes = (np.diff(sets) != 0).mean()
    assert 0.47 < changes < 0.53
    assert not np.array_equal(sets[:100], Mixture((1, 1), seed=0).split(np.arange(CYCLE, CYCLE + 100))[0])


def test_one_set_keeps_its_positions() -> None:
    sets, positions = Mixture((5,), seed=0).split(np.array([0, 7, 10**9]))
    assert sets.tolist() == [0, 0, 0] and positions.tolist() == [0, 7, 10**9]


@pytest.mark.parametrize("weights, num_lanes", [((3, 1), 4), ((0.7, 0.2, 0.1), 5), ((1, 99), 64)])
def test_each_lane_of_the_stream_has_that_lane_of_every_set(weights: tuple[float, ...], num_lanes: int) -> None:
    positions = np.arange(2 * CYCLE * num_lanes)
    sets, own = Mixture(weights, 3, num_lanes).split(positions)
    for lane in range(num_lanes):
        rows = positions % num_lanes == lane
        for number, weight in enumerate(weights):
            turns, lanes = np.divmod(own[rows & (sets == number)], num_lanes)
            assert (lanes == lane).all()
            assert np.array_equal(turns, np.arange(len(turns)))  # in order: none twice, none missing
            assert abs(len(turns) / (2 * CYCLE) - weight / sum(weights)) < 0.02
    step = sets.reshape(-1, num_lanes)
    assert (step != step[:, :1]).any(axis=1).mean() > 0.5 or min(weights) == 1  # the lanes do not go in step


def test_after_its_length_every_set_has_had_its_epochs() -> None:
    for num_lanes in (1, 8):
        mixture = Mixture((3, 1), 0, num_lanes)
        sizes = [7500 * num_lanes, 2500 * num_lanes]  # whole cycles
        sets, own = mixture.split(np.arange(mixture.length(sizes, 2)))
        for number, size in enumerate(sizes):
            assert np.isin(np.arange(2 * size), own[sets == number]).all()
    assert Mixture((1,), 0, 8).length([7000], 2) == 14_000


def test_a_share_too_small_is_refused() -> None:
    with pytest.raises(UserError, match=r"^data\.mixture: weight 1e-05 is less than 0\.0001 of all"):
        apportioned((1, 1e-5))
