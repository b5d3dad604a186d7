"""Where in an epoch a sample stands: the orders, run backwards. Nothing but the audit needs it.

Each round of a Feistel network is undone, the last one first; what falls outside walks back along its cycle.
"""

import math

import numpy as np

from ifvit.data.lane_order import LaneOrder
from ifvit.data.order import FEISTEL_ROUNDS, Integers, SampleOrder, Words, hashed
from ifvit.data.row_permutation import drawn
from ifvit.runtime.seeding import derived_seed


def epoch_positions(order: SampleOrder, samples: Integers, epoch: int) -> Integers:
    """The position 0..N-1 in `epoch` at which each of `samples` stands."""
    if isinstance(order, LaneOrder):
        return lane_positions(order, samples, epoch)
    return inverse_permuted(samples, order.num_samples, order.seed, epoch)


def inverse_permuted(samples: Integers, size: int, seed: int, epoch: int) -> Integers:
    """The position 0..size-1 that `permuted` sends to each of `samples`."""
    side = math.isqrt(size - 1) + 1
    keys = [derived_seed(seed, "order", epoch, number) for number in range(FEISTEL_ROUNDS)]
    result = samples.astype(np.int64)
    outside = np.arange(len(result))
    while len(outside):
        left, right = np.divmod(result[outside], side)
        for key in reversed(keys):
            mixed = (hashed(key, left) % np.uint64(side)).astype(np.int64)
            left, right = (right - mixed) % side, left
        result[outside] = left * side + right
        outside = outside[result[outside] >= size]
    return result


def lane_positions(order: LaneOrder, samples: Integers, epoch: int) -> Integers:
    """From the sample to its place in the line of shards, to its turn in its lane, to the position."""
    line = order.line(epoch)
    offsets = np.empty_like(line.offsets)
    offsets[line.shards] = line.offsets
    places = samples - offsets[np.searchsorted(order.first_samples, samples, side="right") - 1]
    places = (places - line.rotation) % order.num_samples
    intervals = np.searchsorted(order.interval_starts, places, side="right") - 1
    in_interval = places - order.interval_starts[intervals]
    blocks = (in_interval + order.phases[intervals]) // order.window
    first_turns, last_turns = order.block_turns(intervals, blocks)
    keys = hashed(derived_seed(order.seed, "lane blocks", epoch), blocks * order.num_lanes + intervals)
    turns = first_turns + inverse_permuted_rows(in_interval - first_turns, last_turns - first_turns + 1, keys)
    return turns * order.num_lanes + intervals


def inverse_permuted_rows(numbers: Integers, sizes: Integers, keys: Words) -> Integers:
    """The number that `permuted_rows` sends to each of `numbers`."""
    bounds = sizes.astype(np.uint64)
    sides = np.ceil(np.sqrt(sizes)).astype(np.uint64)
    result = unmixed(numbers.astype(np.uint64), sides, keys)
    while len(outside := np.flatnonzero(result >= bounds)):
        result[outside] = unmixed(result[outside], sides[outside], keys[outside])
    return result.astype(np.int64)


def unmixed(numbers: Words, sides: Words, keys: Words) -> Words:
    """One pass of the network of `row_permutation.mixed`, backwards."""
    left, right = numbers // sides, numbers % sides
    for number in reversed(range(FEISTEL_ROUNDS)):
        left, right = (right + sides - drawn(number, left, sides, keys)) % sides, left
    return left * sides + right
