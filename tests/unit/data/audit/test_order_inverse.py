"""ifvit/data/audit/order_inverse.py"""

import numpy as np
import pytest

from ifvit.data.audit.order_inverse import epoch_positions
from ifvit.data.lane_order import LaneOrder
from ifvit.data.order import SampleOrder

SEED = 1234


@pytest.mark.parametrize(
    "order",
    [
        *(SampleOrder(size, SEED) for size in (1, 2, 5, 100, 10_007)),
        LaneOrder([3], SEED, 8),
        LaneOrder([100] * 37 + [13], SEED, 8),
        LaneOrder([0, 5, 0, 7, 1000, 3], SEED, 4),
        LaneOrder([1000] * 50, SEED, 64, window=300),
    ],
)
@pytest.mark.parametrize("epoch", [0, 1, 1000])
def test_where_a_sample_stands_is_where_it_is_found(order: SampleOrder, epoch: int) -> None:
    positions = np.arange(order.num_samples)
    samples = order.samples(positions + epoch * order.num_samples)
    assert np.array_equal(epoch_positions(order, samples, epoch), positions)


def test_also_of_a_billion() -> None:
    order = SampleOrder(10**9, SEED)
    positions = np.random.default_rng(0).integers(0, 10**9, 1000)
    assert np.array_equal(epoch_positions(order, order.samples(positions), 0), positions)
