"""ifvit/data/order.py"""

import numpy as np
import pytest

from ifvit.data.order import SampleOrder, hashed, permuted

SEED = 1234


def splitmix64(seed: int, count: int) -> list[int]:
    """The published generator, in Python's integers."""
    mask, outputs, state = 2**64 - 1, [], seed
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        word = state
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
        outputs.append(word ^ (word >> 31))
    return outputs


@pytest.mark.parametrize("key", [0, 1, 2**63 - 1])
def test_hash_is_splitmix64(key: int) -> None:
    assert hashed(key, np.arange(20)).tolist() == splitmix64(key, 20)


def test_hash_is_the_published_one() -> None:
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9, 10, 589, 1000, 82_783])
def test_every_epoch_holds_each_sample_once(size: int) -> None:
    order = SampleOrder(size, SEED)
    for epoch in (0, 1, 1_000_000):
        positions = np.arange(size) + epoch * size
        assert np.array_equal(np.sort(order.samples(positions)), np.arange(size))


def test_positions_may_straddle_epochs_and_come_in_any_pieces() -> None:
    order = SampleOrder(10, SEED)
    whole = order.samples(np.arange(95))
    pieces = [order.samples(np.arange(start, min(start + 7, 95))) for start in range(0, 95, 7)]
    assert np.array_equal(whole, np.concatenate(pieces))
    assert order.samples(np.array([42])) == whole[42]


def test_order_changes_with_epoch_and_seed() -> None:
    first = permuted(np.arange(1000), 1000, SEED, 0)
    for other in (permuted(np.arange(1000), 1000, SEED, 1), permuted(np.arange(1000), 1000, SEED + 1, 0)):
        assert (first == other).mean() < 0.02
    assert not np.array_equal(first, np.arange(1000))


def test_every_sample_is_equally_likely_at_every_position() -> None:
    size, epochs = 11, 2200
    counts = np.zeros((size, size))
    for epoch in range(epochs):
        counts[np.arange(size), permuted(np.arange(size), size, SEED, epoch)] += 1
    chi_square = ((counts - epochs / size) ** 2 / (epochs / size)).sum()
    assert 60 < chi_square < 150  # 100 degrees of freedom: standard deviation 14


def test_neighbours_are_independent() -> None:
    """No stride is preferred: an affine map would have one, three Feistel rounds a few."""
    size = 1009
    strides = np.concatenate([np.diff(permuted(np.arange(size), size, SEED, epoch)) % size for epoch in range(40)])
    counts = np.bincount(strides, minlength=size)[1:]
    expected = len(strides) / (size - 1)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - (size - 2)) < 5 * np.sqrt(2 * (size - 2))


def test_captions_are_drawn_uniformly_and_again_each_epoch() -> None:
    order = SampleOrder(6000, SEED)
    positions = np.arange(12_000)
    samples = order.samples(positions)
    choices = order.caption_choices(positions, samples, np.full(12_000, 5))
    assert np.bincount(choices, minlength=5) == pytest.approx(np.full(5, 2400), abs=5 * np.sqrt(12_000 * 0.16))
    by_sample = [choices[part][np.argsort(samples[part])] for part in (slice(6000), slice(6000, None))]
    assert (by_sample[0] == by_sample[1]).mean() == pytest.approx(0.2, abs=0.03)


def test_captions_stay_within_each_image_s_own_number() -> None:
    order = SampleOrder(300, SEED)
    positions = np.arange(3000)
    num_captions = 1 + positions % 7
    choices = order.caption_choices(positions, order.samples(positions), num_captions)
    assert (choices >= 0).all()
    assert (choices < num_captions).all()
    assert choices[num_captions == 7].max() == 6


@pytest.mark.parametrize("probability, low, high", [(0.0, 0, 0), (1.0, 20_000, 20_000), (0.1, 1790, 2210)])
def test_dropout_rate(probability: float, low: int, high: int) -> None:
    order = SampleOrder(5000, SEED)
    positions = np.arange(20_000)
    dropped = order.is_dropped(positions, order.samples(positions), probability)
    assert low <= dropped.sum() <= high


def test_dropout_and_caption_choice_are_independent() -> None:
    order = SampleOrder(20_000, SEED)
    positions = np.arange(20_000)
    samples = order.samples(positions)
    dropped = order.is_dropped(positions, samples, 0.5)
    choices = order.caption_choices(positions, samples, np.full(20_000, 2))
    assert (dropped == choices.astype(bool)).mean() == pytest.approx(0.5, abs=0.02)
