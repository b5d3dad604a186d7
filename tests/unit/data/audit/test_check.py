"""ifvit/data/audit/check.py"""

import math

import pytest
from scipy import stats

from ifvit.data.audit.check import chance_check, chi_square_z, count_z


@pytest.mark.parametrize("degrees", [3, 10, 100, 4000])
@pytest.mark.parametrize("z", [-3.0, -1.0, 0.0, 2.0, 4.0, 5.0])
def test_a_chi_square_as_a_normal_number(degrees: int, z: float) -> None:
    chi_square = stats.chi2.isf(stats.norm.sf(z), degrees)
    assert chi_square_z(chi_square, degrees) == pytest.approx(z, abs=0.15 if degrees > 3 else 0.4)


@pytest.mark.parametrize("trials, probability", [(1000, 0.1), (10**6, 0.5), (10**9, 1e-8), (10**7, 0.001)])
@pytest.mark.parametrize("z", [-3.0, -1.0, 2.0, 4.0, 5.0])
def test_a_count_as_a_normal_number(trials: int, probability: float, z: float) -> None:
    count = int(stats.binom.isf(stats.norm.sf(z), trials, probability))
    low, high = (stats.norm.isf(stats.binom.sf(count + offset, trials, probability)) for offset in (-1, 0))
    assert low - 0.5 < count_z(count, trials, probability) < high + 0.2


@pytest.mark.parametrize("probability, count", [(0.0, 0), (1.0, 50)])
def test_a_certain_count(probability: float, count: int) -> None:
    assert count_z(count, 50, probability) == 0
    assert count_z(25, 50, probability) == math.inf


@pytest.mark.parametrize(
    "z, verdict", [(4.9, "pass"), (-4.9, "pass"), (5.1, "FAIL"), (-5.1, "FAIL"), (math.inf, "FAIL")]
)
def test_a_verdict(z: float, verdict: str) -> None:
    assert chance_check("name", z, "found", "expected").verdict == verdict
