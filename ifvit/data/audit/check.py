"""One line of an audit: what was looked at, what was found, and whether that may be chance.

What depends on chance is expressed as z: how far it lies from what a perfect shuffle gives, in standard deviations.
|z| < MAX_Z passes. A perfect shuffle is beyond 5 once in 1.7 million times (beyond 4 once in 16,000: with ten checks an
audit in 1,600 would be wrong, for good, since an order is always the same). A faulty order is usually beyond 100.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

MAX_Z = 5.0
Verdict = Literal["pass", "FAIL", "not judged"]


@dataclass(frozen=True)
class Check:
    """`found` and `expected` are text for people; `z` is None where nothing depends on chance."""

    name: str
    verdict: Verdict
    found: str
    expected: str = ""
    z: float | None = None


def exact_check(name: str, holds: bool, found: str) -> Check:
    """Something that must hold, whatever the seed."""
    return Check(name, "pass" if holds else "FAIL", found)


def chance_check(name: str, z: float, found: str, expected: str, max_z: float = MAX_Z) -> Check:
    return Check(name, "pass" if abs(z) < max_z else "FAIL", found, expected, round(z, 3))


def not_judged(name: str, why: str) -> Check:
    return Check(name, "not judged", why)


def for_comparison(check: Check) -> Check:
    """The same numbers without a verdict: what is expected is that of another order."""
    return replace(check, verdict="not judged")


def chi_square_check(name: str, chi_square: float, degrees: float, cells: str) -> Check:
    """`degrees` is the expectation of `chi_square`; `cells` says what was counted."""
    z = chi_square_z(chi_square, degrees)
    return chance_check(name, z, f"{cells}: chi-square {chi_square:,.0f}", f"{degrees:,.0f}")


def chi_square_z(chi_square: float, degrees: float) -> float:
    """Wilson and Hilferty's cube root: normal also far out and with few degrees of freedom."""
    spread = 2 / (9 * degrees)
    return (math.cbrt(chi_square / degrees) - (1 - spread)) / math.sqrt(spread)


def count_z(count: int, trials: int, probability: float) -> float:
    """Of a binomial count, by Anscombe's arc sine: normal also where few are expected."""
    if probability in (0.0, 1.0):
        return 0.0 if count == trials * probability else math.inf

    def angle(number: float) -> float:
        return math.asin(math.sqrt((number + 0.375) / (trials + 0.75)))

    return 2 * math.sqrt(trials + 0.5) * (angle(count) - angle(trials * probability))
