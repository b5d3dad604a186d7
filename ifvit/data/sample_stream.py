"""What stands at each global position of a run, and which rank reads it: the orders of its sets, mixed by weight."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ifvit.data.lane_order import LaneOrder, rank_positions
from ifvit.data.mixture import CYCLE, Mixture
from ifvit.data.order import Integers, SampleOrder
from ifvit.runtime.seeding import derived_seed


class Order(Protocol):
    """The order of one set of samples, as the loader asks for it; SampleOrder says what each method gives."""

    num_samples: int

    def epochs(self, positions: Integers) -> Integers: ...

    def samples(self, positions: Integers) -> Integers: ...

    def caption_choices(self, positions: Integers, samples: Integers, num_captions: Integers) -> Integers: ...

    def is_dropped(self, positions: Integers, samples: Integers, caption_dropout_prob: float) -> NDArray[np.bool_]: ...


@dataclass(frozen=True)
class Visits:
    """Rows of the stream; all arrays are (R,)."""

    positions: Integers  # in the stream
    sets: Integers  # which set the sample is of
    own_positions: Integers  # in the endless order of that set
    epochs: Integers  # of that set
    samples: Integers  # numbered 0.. within that set

    def of_set(self, number: int, epoch: int) -> "Visits":
        """Those of one epoch of one set, in the order of the stream."""
        is_own = (self.sets == number) & (self.epochs == epoch)
        return self if is_own.all() else self.rows(is_own)

    def rows(self, which: slice | NDArray[np.bool_]) -> "Visits":
        return Visits(*(column[which] for column in vars(self).values()))


class SampleStream:
    """The endless stream of samples that training reads, `global_batch_size` a step."""

    def __init__(self, orders: Sequence[Order], mixture: Mixture, global_batch_size: int) -> None:
        self.orders = orders
        self.mixture = mixture
        self.global_batch_size = global_batch_size

    @classmethod
    def of(
        cls,
        shard_sizes: Sequence[Integers],
        weights: Sequence[float],
        seed: int,
        global_batch_size: int,
        num_lanes: int | None = None,
    ) -> "SampleStream":
        """That of a run with this seed. `shard_sizes`: of each set, the samples in each of its shards.

        With `num_lanes` the order is that of shards that are fetched.
        """
        orders = []
        for number, sizes in enumerate(shard_sizes):
            set_seed = derived_seed(seed, "set of the mixture", number) if number else seed
            if num_lanes is None:
                orders.append(SampleOrder(int(sizes.sum()), set_seed))
            else:
                orders.append(LaneOrder(sizes, set_seed, num_lanes))
        return cls(orders, Mixture(weights, seed), global_batch_size)

    def visits(self, positions: Integers) -> Visits:
        """What stands at global `positions`."""
        sets, own_positions = self.mixture.split(positions)
        epochs, samples = np.empty_like(positions), np.empty_like(positions)
        for number, order in enumerate(self.orders):
            rows = np.flatnonzero(sets == number)
            epochs[rows] = order.epochs(own_positions[rows])
            samples[rows] = order.samples(own_positions[rows])
        return Visits(positions, sets, own_positions, epochs, samples)

    def batch_positions(self, first_step: int, stop_step: int) -> Integers:
        """The positions of the global batches of these steps."""
        size = self.global_batch_size
        return np.arange(first_step * size, stop_step * size, dtype=np.int64)

    def rank_positions(self, step: int, rank: int, world_size: int) -> Integers:
        """The positions that a rank reads in a step."""
        return rank_positions(step, self.global_batch_size, rank, world_size)

    def ranks(self, positions: Integers, world_size: int) -> Integers:
        """The rank that reads each position: the inverse of `rank_positions`."""
        return positions % self.global_batch_size % world_size

    def length(self, epochs: int) -> int:
        """The number of positions after which every set has had `epochs` whole epochs."""
        if len(self.orders) == 1:
            return epochs * self.orders[0].num_samples
        cycles = [
            -(-epochs * order.num_samples // int(count))
            for order, count in zip(self.orders, self.mixture.counts, strict=True)
        ]
        return max(cycles) * CYCLE
