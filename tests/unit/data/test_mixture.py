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


def test_a_share_too_small_is_refused() -> None:
    with pytest.raises(UserError, match=r"^data\.mixture: weight 1e-05 is less than 0\.0001 of all"):
        apportioned((1, 1e-5))
