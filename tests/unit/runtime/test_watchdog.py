"""How often ranks give a sign of life. What follows when they do not: tests/faults."""

import pytest

from ifvit.runtime.watchdog import beat_interval


@pytest.mark.parametrize(
    ("world_size", "watchdog_seconds", "interval"), [(2, 120, 1.0), (1000, 120, 10.0), (12_000, 120, 15.0), (2, 4, 0.5)]
)
def test_a_rank_is_not_late_before_it_has_missed_eight_beats(
    world_size: int, watchdog_seconds: float, interval: float
) -> None:
    assert beat_interval(world_size, watchdog_seconds) == interval
