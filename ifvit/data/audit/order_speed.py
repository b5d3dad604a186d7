"""How fast an order is: facts, which depend on the machine."""

import statistics
import time
from collections.abc import Callable

import numpy as np

from ifvit.data.sample_stream import SampleStream

CHUNKS = (4096, 65_536)
MAX_ROWS = 1 << 20  # timed for each size of chunk
NUM_SEEKS = 5


def nanoseconds_per_index(stream: SampleStream, chunk: int) -> float | None:
    """Of finding the samples at `chunk` consecutive positions, at places all over an epoch: a median.

    None where an epoch is shorter.
    """
    num_chunks = min(stream.length(1), MAX_ROWS) // chunk
    stride = stream.length(1) // max(1, num_chunks)

    def find(first: int) -> float:
        positions = np.arange(first, first + chunk, dtype=np.int64)
        started = time.perf_counter()
        stream.visits(positions)
        return (time.perf_counter() - started) / chunk * 1e9

    return statistics.median(find(number * stride) for number in range(num_chunks)) if num_chunks else None


def seek_seconds(make_stream: Callable[[], SampleStream], step: int) -> float:
    """Of finding the batch of `step` from nothing, as a resumed process does: the median of a few times."""

    def seek() -> float:
        started = time.perf_counter()
        stream = make_stream()
        stream.visits(stream.batch_positions(step, step + 1))
        return time.perf_counter() - started

    return statistics.median(seek() for _ in range(NUM_SEEKS))
