"""ifvit/data/audit/sample_coverage.py"""

import numpy as np
import pytest

from ifvit.data.audit.sample_coverage import SampleCoverage


@pytest.mark.parametrize("size", [1, 7, 8, 9, 1000])
def test_all_samples_in_pieces(size: int) -> None:
    coverage = SampleCoverage(size)
    order = np.random.default_rng(0).permutation(size)
    for piece in np.array_split(order, 3):
        coverage.add(piece)
    assert (coverage.num_visits, coverage.num_covered, coverage.missing(5)) == (size, size, [])


def test_what_is_missing_and_what_is_repeated() -> None:
    coverage = SampleCoverage(1000)
    coverage.add(np.setdiff1d(np.arange(1000), [0, 8, 9, 500, 999]))
    coverage.add(np.array([7, 7, 7]))  # also twice in one piece
    assert (coverage.num_visits, coverage.num_covered) == (998, 995)
    assert coverage.missing(10) == [0, 8, 9, 500, 999]
    assert coverage.missing(2) == [0, 8]


def test_a_bit_for_each_sample() -> None:
    assert SampleCoverage(10**6).bits.nbytes == 125_000
