"""The robust z-score of a loss over the last good ones."""

import math

import numpy as np
import pytest

from ifvit.training.loss_window import MIN_LOSSES, LossWindow


def test_z_is_measured_by_median_and_median_absolute_deviation() -> None:
    window = LossWindow(3.0, 200, [1.0, 2.0, 3.0, 4.0, 100.0])  # median 3, deviations 2 1 0 1 97: MAD 1
    assert window.z_score(3.0) == 0
    assert window.z_score(3.0 + 1.4826) == pytest.approx(1)


def test_the_limit_is_the_loss_with_a_z_of_the_threshold() -> None:
    losses = list(np.random.default_rng(0).normal(1.0, 0.1, 200))
    window = LossWindow(5.0, 200, losses)
    assert window.z_score(window.limit()) == pytest.approx(5)
    assert window.limit() == pytest.approx(1.5, abs=0.08)  # of a normal distribution: 5 standard deviations


def test_one_spike_among_the_losses_hardly_moves_the_limit() -> None:
    losses = list(np.random.default_rng(1).normal(1.0, 0.1, 99))
    without = LossWindow(5.0, 200, losses).limit()
    assert LossWindow(5.0, 200, [*losses, 1e6]).limit() == pytest.approx(without, rel=0.02)


def test_few_losses_call_nothing_a_spike() -> None:
    window = LossWindow(3.0, 200, [1.0, 1.1] * (MIN_LOSSES // 2))
    assert window.limit() < 2
    window.losses.pop()
    assert window.limit() == math.inf


def test_a_small_window_needs_only_itself_to_be_full() -> None:
    window = LossWindow(3.0, 5, [1.0, 1.1, 1.2, 1.3])
    assert window.limit() == math.inf
    window.add(1.4)
    assert window.limit() == pytest.approx(1.2 + 3 * 1.4826 * 0.1)


def test_only_the_newest_losses_count() -> None:
    losses = [9.0]
    window = LossWindow(3.0, 5, losses)
    for loss in (1.0, 2.0, 3.0, 4.0, 5.0):
        window.add(loss)
    assert losses == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_equal_losses_make_no_spike_of_the_next_one() -> None:
    window = LossWindow(5.0, 5, [2.0] * 5)
    assert window.limit() == pytest.approx(2.01)
