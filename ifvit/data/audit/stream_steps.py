"""Which steps of a stream an audit visits."""

from collections.abc import Sequence

import numpy as np

from ifvit.data.sample_stream import SampleStream

ROWS_PER_CHUNK = 1 << 15
SAMPLED_ROWS = 10_000_000
NUM_FIRST_STEPS = 1000  # whose reading is compared between ranks
NUM_KEPT_STEPS = 16


class StreamSteps:
    """The runs of steps that a pass visits, in order: all, or the first ones, the last ones and random ones between."""

    def __init__(self, stream: SampleStream, num_epochs: int, is_sampled: bool) -> None:
        batch_size = stream.global_batch_size
        self.num_steps = -(-stream.length(num_epochs) // batch_size)
        self.chunk = max(1, ROWS_PER_CHUNK // batch_size)
        budget = max(1, SAMPLED_ROWS // batch_size)
        self.visits_all = not is_sampled or self.num_steps <= 2 * budget
        self.num_first = min(NUM_FIRST_STEPS, self.num_steps, budget)
        later = range(self.num_first, self.num_steps, self.chunk)
        starts = later if self.visits_all else self.drawn(later, (budget - self.num_first) // self.chunk)
        self.runs = [
            *((first, min(first + self.chunk, self.num_first)) for first in range(0, self.num_first, self.chunk)),
            *((first, min(first + self.chunk, self.num_steps)) for first in starts),
        ]
        self.kept = self.kept_steps()

    def drawn(self, starts: Sequence[int], count: int) -> list[int]:
        """About `count` of `starts`, in order, and the last one."""
        places = np.random.default_rng(0).integers(0, len(starts), max(1, count))
        return [starts[place] for place in np.unique(np.append(places, len(starts) - 1)).tolist()]

    def kept_steps(self) -> set[int]:
        """Those whose batches are kept, to be read again: the first, the last and random ones."""
        random = np.random.default_rng(1)
        runs = [self.runs[int(place)] for place in random.integers(0, len(self.runs), NUM_KEPT_STEPS - 2)]
        return {0, self.runs[-1][1] - 1, *(int(random.integers(first, stop)) for first, stop in runs)}

    @property
    def num_visited(self) -> int:
        return sum(stop - first for first, stop in self.runs)
