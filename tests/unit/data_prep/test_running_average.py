"""data_prep/running_average.py"""

import pytest

from data_prep.running_average import RunningAverage


def test_it_begins_at_the_first_value_and_follows_the_newest() -> None:
    average = RunningAverage(0.25)
    assert [average.add(value) for value in (8.0, 4.0, 4.0)] == pytest.approx([8.0, 7.0, 6.25])
