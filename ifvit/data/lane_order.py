"""The order for shards that are fetched: shuffled so that few of them are in use at any time.

In each epoch the shards, in an order drawn for it, make a closed line of N samples. It is cut, from a place drawn for
it, into L = num_lanes intervals whose sizes differ by one at most. Global position P belongs to lane P mod L, and each
lane walks through one interval, which is shuffled in blocks of `window` samples. So a rank that takes the positions of
some lanes alone needs, at any time, only the few shards that those lanes' blocks lie in.

Blocks of different lanes end at different times, so that new shards are needed at an even rate.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifvit.data.order import Integers, SampleOrder, distinct, hashed
from ifvit.data.row_permutation import permuted_rows
from ifvit.runtime.seeding import derived_seed

SHARDS_PER_WINDOW = 2  # of average size


@dataclass(frozen=True)
class ShardLine:
    """The S shards in the order of one epoch. An empty one takes no place in it."""

    epoch: int
    shards: Integers  # (S,) their numbers
    starts: Integers  # (S + 1,) the place in the line of each one's first sample; at the end N
    offsets: Integers  # (S,) number of a sample - its place in the line
    rotation: int  # the place that the first interval begins at

    def indices(self, places: Integers) -> Integers:
        """Which of the S shards holds each place: the last that begins there, as empty ones begin there too.

        It is near the one that would if all had the same size: what is not is searched for, which takes longer.
        """
        count = len(self.shards)
        guesses = (places * (count / int(self.starts[-1]))).astype(np.int64)
        guesses += places >= self.starts[guesses + 1]
        guesses -= places < self.starts[guesses]
        is_wrong = (places < self.starts[guesses]) | (places >= self.starts[guesses + 1])
        if is_wrong.any():
            guesses[is_wrong] = np.searchsorted(self.starts, places[is_wrong], side="right") - 1
        return guesses

    def samples(self, places: Integers) -> Integers:
        """At `places` counted from the rotation."""
        size = int(self.starts[-1])
        places = places + self.rotation
        places -= size * (places >= size)
        return places + self.offsets[self.indices(places)]

    def ranges(self, firsts: Integers, lasts: Integers) -> tuple[Integers, Integers]:
        """The first and the last index of the shards from each place to another, both counted from the rotation.

        Indices go on behind S with those of the line's begin.
        """
        rounds, places = np.divmod(np.stack([firsts, lasts]) + self.rotation, int(self.starts[-1]))
        first, last = self.indices(places) + rounds * len(self.shards)
        return first, last


class LaneOrder(SampleOrder):
    """The order of the samples of shards with `shard_sizes` samples each, for one seed.

    Another `num_lanes` or `window` is another order; the number of ranks changes nothing. `window` None takes the
    largest square, which is shuffled fastest, of at most SHARDS_PER_WINDOW times the samples of an average shard.
    """

    def __init__(
        self, shard_sizes: Sequence[int] | Integers, seed: int, num_lanes: int, window: int | None = None
    ) -> None:
        sizes = np.asarray(shard_sizes, np.int64)
        super().__init__(int(sizes.sum()), seed)
        self.shard_sizes = sizes
        self.first_samples = np.cumsum(sizes)
        self.first_samples -= sizes
        self.num_lanes = num_lanes
        self.given_window = window
        lanes = np.arange(num_lanes)
        share, rest = divmod(self.num_samples, num_lanes)
        self.interval_sizes = share + (lanes < rest)
        self.interval_starts = lanes * share + np.minimum(lanes, rest)
        self.mean_size = self.num_samples / np.count_nonzero(sizes)
        window = window or math.isqrt(int(SHARDS_PER_WINDOW * self.mean_size)) ** 2
        self.window = min(window, share + 1)  # an interval has no more
        # So many samples the first block of an interval lacks, where intervals have several; squares are left.
        first_blocks = np.sqrt(self.window - lanes * self.window // num_lanes).astype(np.int64) ** 2
        self.phases = (self.window - first_blocks) * (self.window <= share)
        self.lines: list[ShardLine] = []  # those of the two epochs asked for last: a batch may straddle two
        self.lines_lock = threading.Lock()

    def with_lanes(self, num_lanes: int) -> "LaneOrder":
        """That of the same shards and seed with another number of lanes."""
        return LaneOrder(self.shard_sizes, self.seed, num_lanes, self.given_window)

    def max_bytes_in_use(
        self, shard_bytes: Sequence[int] | Integers, world_size: int = 1, num_rows: int | None = None
    ) -> int:
        """A bound of what the shards have that a rank's next `num_rows` rows lie in, anywhere in the order.

        `shard_bytes` are those of all shards. `num_rows` None: one of each of its lanes.
        """
        bytes_ = np.asarray(shard_bytes, np.int64) * (self.shard_sizes > 0)
        num_shards = self.lanes_of_rank(world_size) * self.max_shards_of_lane(world_size, num_rows)
        return int(min(bytes_.sum(), num_shards * bytes_.max() + bytes_[self.is_small].sum()))

    def lanes_of_rank(self, world_size: int) -> int:
        """How many lanes a rank reads."""
        return self.num_lanes // math.gcd(self.num_lanes, world_size)

    def max_shards_of_lane(self, world_size: int, num_rows: int | None) -> int:
        """A bound of the shards, but for small ones, that a rank's next `num_rows` rows of a lane lie in."""
        ends = np.cumsum(np.sort(self.shard_sizes[~self.is_small]))
        num_lanes = self.lanes_of_rank(world_size)
        turns = -(-(num_rows or num_lanes) // num_lanes)
        blocks = -(-(turns - 1) // self.window) + 1
        whole = np.searchsorted(ends, blocks * self.window - 2, side="right")
        # One in part at each end; where an epoch ends within the turns, there are two more ends.
        return int(whole) + (2 if turns == 1 else 4)

    @property
    def is_small(self) -> NDArray[np.bool_]:
        """Which shards have much less than the others, such as the last one of most sets."""
        return self.shard_sizes * 2 < self.mean_size

    def samples(self, positions: Integers) -> Integers:
        """Sample indices 0..num_samples-1 at global `positions` (each >= 0)."""
        if not len(positions):
            return positions
        first, last = int(positions.min()) // self.num_samples, int(positions.max()) // self.num_samples
        if first == last:
            return self.samples_of(positions, first)
        epochs = self.epochs(positions)
        result = np.empty_like(positions)
        for epoch in distinct(epochs):
            rows = np.flatnonzero(epochs == epoch)
            result[rows] = self.samples_of(positions[rows], epoch)
        return result

    def samples_of(self, positions: Integers, epoch: int) -> Integers:
        """At global positions of one epoch."""
        return self.line(epoch).samples(self.places(positions - epoch * self.num_samples, epoch))

    def places(self, numbers: Integers, epoch: int) -> Integers:
        """The places in the line of `epoch` that its positions `numbers`, 0..N-1, are sent to."""
        turns = numbers // self.num_lanes
        intervals = numbers - turns * self.num_lanes
        blocks = (turns + self.phases[intervals]) // self.window
        first_turns, last_turns = self.block_turns(intervals, blocks)
        keys = hashed(derived_seed(self.seed, "lane blocks", epoch), blocks * self.num_lanes + intervals)
        shuffled = permuted_rows(turns - first_turns, last_turns - first_turns + 1, keys)
        return self.interval_starts[intervals] + first_turns + shuffled

    def block_turns(self, intervals: Integers, blocks: Integers) -> tuple[Integers, Integers]:
        """The first and the last turn of `blocks`, counted from the start of their intervals."""
        starts = blocks * self.window - self.phases[intervals]
        stops = np.minimum(starts + self.window, self.interval_sizes[intervals])
        return np.maximum(starts, 0), stops - 1

    def line(self, epoch: int) -> ShardLine:
        """The shards of `epoch` in their order. Takes time and memory for each shard, once per epoch."""
        with self.lines_lock:
            for line in self.lines:
                if line.epoch == epoch:
                    return line
            line = self.new_line(epoch)
            self.lines = [line, *self.lines[:1]]
            return line

    def new_line(self, epoch: int) -> ShardLine:
        order = shuffled(len(self.shard_sizes), derived_seed(self.seed, "shard line", epoch))
        starts = np.zeros(len(order) + 1, np.int64)
        np.cumsum(self.shard_sizes[order], out=starts[1:])
        rotation = derived_seed(self.seed, "lane rotation", epoch) % self.num_samples
        offsets = self.first_samples[order]
        offsets -= starts[:-1]
        return ShardLine(epoch, order, starts, offsets, rotation)

    def upcoming_shards(self, first: int, stop: int, rank: int = 0, world_size: int = 1) -> Integers:
        """The shards that a rank needs for its rows of the global positions first..stop-1, the most urgent first.

        They are those of all blocks that the positions are in: what a block needs, it needs from its start. No sample
        is looked at; the time taken is that of the lanes and their shards.
        """
        times, shards = [], []
        for epoch in range(first // self.num_samples, -(-stop // self.num_samples)):
            start = epoch * self.num_samples
            line = self.line(epoch)
            intervals = self.intervals_of(rank, world_size, epoch)
            bounds = np.clip([first - start, stop - start], 0, self.num_samples)
            # Turn t of interval j is at position t * L + j of the epoch.
            first_turns, stop_turns = (bounds[:, None] - intervals + self.num_lanes - 1) // self.num_lanes
            intervals, first_turns, stop_turns = (
                each[first_turns < stop_turns] for each in (intervals, first_turns, stop_turns)
            )
            phases = self.phases[intervals]
            rows, blocks = spread((first_turns + phases) // self.window, (stop_turns - 1 + phases) // self.window)
            intervals = intervals[rows]
            first_turns, last_turns = self.block_turns(intervals, blocks)
            starts = self.interval_starts[intervals]
            rows, indices = spread(*line.ranges(starts + first_turns, starts + last_turns))
            indices %= len(line.shards)
            times.append(start + np.maximum(first_turns * self.num_lanes + intervals, bounds[0])[rows])
            shards.append(line.shards[indices])
        in_order = np.concatenate(shards)[np.argsort(np.concatenate(times), kind="stable")]
        in_order = in_order[np.sort(np.unique(in_order, return_index=True)[1])]
        return in_order[self.shard_sizes[in_order] > 0]

    def intervals_of(self, rank: int, world_size: int, epoch: int) -> Integers:
        """The intervals of the line of `epoch` that the rank's lanes walk through."""
        intervals = np.arange(self.num_lanes)
        common = math.gcd(self.num_lanes, world_size)
        return intervals[(epoch * self.num_samples + intervals - rank) % common == 0]


def shuffled(count: int, key: int) -> Integers:
    """The numbers 0..count-1 in an order drawn by `key`."""
    words = np.random.PCG64(key).random_raw(count)  # numpy promises that these stay as they are
    # The numbers stand in the lowest bits of what is sorted: several times faster than argsort.
    low_bits = np.uint64((1 << count.bit_length()) - 1)
    words &= ~low_bits
    words |= np.arange(count, dtype=np.uint64)
    words.sort()
    words &= low_bits
    return words.view(np.int64)


def rank_positions(step: int, global_batch_size: int, rank: int, world_size: int) -> Integers:
    """The positions of one rank's rows of a global batch: its rows rank, rank + world_size, ...

    Where `world_size` divides the number of lanes, they are those of every world_size-th lane, in every batch.
    """
    return step * global_batch_size + np.arange(rank, global_batch_size, world_size)


def spread(firsts: Integers, lasts: Integers) -> tuple[Integers, Integers]:
    """All numbers firsts[k]..lasts[k] of row 0, then of row 1 and so on: (the row, the number) of each."""
    counts = lasts - firsts + 1
    rows = np.repeat(np.arange(len(counts)), counts)
    return rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) + firsts[rows]
