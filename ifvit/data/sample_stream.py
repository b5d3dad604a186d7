"""What stands at each global position of a run, and which rank reads it: the orders of its sets, mixed by weight."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ifvit.data.lane_order import LaneOrder, rank_positions
from ifvit.data.mixture import Mixture
from ifvit.data.order import Integers, SampleOrder
from ifvit.runtime.seeding import derived_seed

ROWS_AT_ONCE = 4096
MAX_ROWS_AT_ONCE = 2 * ROWS_AT_ONCE  # more do not stay in a processor's cache from one operation to the next


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
        num_lanes: int = 64,
        has_lanes: Sequence[bool] | None = None,
    ) -> "SampleStream":
        """That of a run with this seed. `shard_sizes`: of each set, the samples in each of its shards.

        `has_lanes`: of each set, whether its order is that of shards that are fetched; None: of none.
        """
        has_lanes = has_lanes or [False] * len(shard_sizes)
        orders: list[Order] = []
        for number, (sizes, is_laned) in enumerate(zip(shard_sizes, has_lanes, strict=True)):
            set_seed = derived_seed(seed, "set of the mixture", number) if number else seed
            order = LaneOrder(sizes, set_seed, num_lanes) if is_laned else SampleOrder(int(sizes.sum()), set_seed)
            orders.append(order)
        return cls(orders, Mixture(weights, seed, num_lanes if any(has_lanes) else 1), global_batch_size)

    def visits(self, positions: Integers) -> Visits:
        """What stands at global `positions`."""
        if len(positions) > MAX_ROWS_AT_ONCE:
            starts = range(0, len(positions), MAX_ROWS_AT_ONCE)
            parts = [self.visits(positions[start : start + MAX_ROWS_AT_ONCE]) for start in starts]
            return Visits(*map(np.concatenate, zip(*(vars(part).values() for part in parts), strict=True)))
        sets, own_positions = self.mixture.split(positions)
        if len(self.orders) == 1:
            order = self.orders[0]
            return Visits(positions, sets, own_positions, order.epochs(positions), order.samples(positions))
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
        return self.mixture.length([order.num_samples for order in self.orders], epochs)


class RankVisits:
    """What one rank reads in each step. Any thread may ask.

    Several steps are found at once: of a few rows most of the time goes into calling numpy.
    """

    def __init__(self, stream: SampleStream, rank: int, world_size: int) -> None:
        self.stream = stream
        self.rank, self.world_size = rank, world_size
        self.num_rows = stream.global_batch_size // world_size
        self.num_steps = max(1, ROWS_AT_ONCE // self.num_rows)
        self.lock = threading.Lock()
        self.found: dict[int, Visits] = {}  # those of steps k * num_steps .. (k + 1) * num_steps - 1, by k

    def of(self, step: int) -> Visits:
        """The visits of the rank's rows of a global batch."""
        number, place = divmod(step, self.num_steps)
        with self.lock:  # so that no two threads find the same
            visits = self.found.get(number)
            if visits is None:
                steps = range(number * self.num_steps, (number + 1) * self.num_steps)
                positions = [self.stream.rank_positions(each, self.rank, self.world_size) for each in steps]
                visits = self.stream.visits(np.concatenate(positions))
                latest = max(self.found, default=number)  # another thread may still be there
                self.found = {latest: self.found.get(latest, visits), number: visits}
        return visits.rows(slice(place * self.num_rows, (place + 1) * self.num_rows))
