"""Is what stands in a step the same whoever asks: after a resume, and however many ranks share it?"""

from collections.abc import Callable, Sequence

import numpy as np

from ifvit.data.audit.check import Check, exact_check
from ifvit.data.order import Integers
from ifvit.data.sample_stream import SampleStream, Visits

NUM_CAPTIONS = 5  # taken for all images here: the draw is compared, whatever the numbers are
MAX_RANK_READINGS = 2000  # for one number of ranks


class StepAudit:
    """Compares batches that were kept from one long reading with the same batches read by processes that begin there.

    `make_stream` builds what a new process builds: it has read nothing yet.
    """

    resume_name = "a resume goes on in the same order"
    world_size_name = "the same batches at any number of ranks"
    rows_name = "each rank has an equal share of every batch"

    def __init__(self, make_stream: Callable[[], SampleStream], caption_dropout_prob: float) -> None:
        self.make_stream = make_stream
        self.caption_dropout_prob = caption_dropout_prob
        self.kept: dict[int, Integers] = {}

    def keep(self, step: int, stream: SampleStream, visits: Visits) -> None:
        """`visits` are the global batch of `step` as the long reading met them."""
        self.kept[step] = self.read(stream, visits)

    def read(self, stream: SampleStream, visits: Visits) -> Integers:
        """(R, 4): set, sample, caption and whether it is dropped, of each row."""
        captions, is_dropped = np.empty_like(visits.samples), np.empty(len(visits.samples), np.bool_)
        for number, order in enumerate(stream.orders):
            rows = np.flatnonzero(visits.sets == number)
            positions, samples = visits.own_positions[rows], visits.samples[rows]
            captions[rows] = order.caption_choices(positions, samples, np.full_like(samples, NUM_CAPTIONS))
            is_dropped[rows] = order.is_dropped(positions, samples, self.caption_dropout_prob)
        return np.stack([visits.sets, visits.samples, captions, is_dropped], axis=1)

    def resume_check(self) -> Check:
        for step, kept in sorted(self.kept.items(), reverse=True):
            stream = self.make_stream()
            found = self.read(stream, stream.visits(stream.batch_positions(step, step + 1)))
            if not np.array_equal(found, kept):
                return exact_check(self.resume_name, False, f"begun at step {step:,}: other rows than without a stop")
        steps = f"{min(self.kept):,} to {max(self.kept):,}"
        return exact_check(self.resume_name, True, f"begun at {len(self.kept)} steps, {steps}: same rows and captions")

    def rank_checks(self, world_sizes: Sequence[int]) -> list[Check]:
        """Whether the ranks have equal shares, and whether these make up the batch that was kept."""
        uneven, different = "", ""
        for world_size in world_sizes:
            steps = sorted(self.kept)
            for step in steps[:: max(1, len(steps) * world_size // MAX_RANK_READINGS)]:
                step_uneven, step_different = self.compare(step, world_size)
                uneven, different = uneven or step_uneven, different or step_different
        ranks = f"{', '.join(map(str, world_sizes[:6]))}{', ...' * (len(world_sizes) > 6)} ranks"
        return [
            exact_check(self.world_size_name, not different, different or f"{ranks}: same rows and captions"),
            exact_check(self.rows_name, not uneven, uneven or f"{ranks}: each row is read by one rank"),
        ]

    def compare(self, step: int, world_size: int) -> tuple[str, str]:
        """What is wrong with the ranks' shares of a step, and with what they read there; "" where nothing is."""
        kept = self.kept[step]
        first, num_rows = step * len(kept), len(kept)
        num_readers = np.zeros(num_rows, np.int64)
        uneven = different = ""
        stream = self.make_stream()
        for rank in reversed(range(world_size)):
            positions = stream.rank_positions(step, rank, world_size)
            rows = positions - first
            where = f"step {step:,}, rank {rank} of {world_size}"
            if len(rows) * world_size != num_rows or rows.min() < 0 or rows.max() >= num_rows:
                uneven = uneven or f"{where}: {len(rows)} rows of {num_rows}, or rows of another step"
                continue
            num_readers[rows] += 1
            if not (stream.ranks(positions, world_size) == rank).all():
                uneven = uneven or f"{where}: has rows that count as another rank's"
            if not np.array_equal(self.read(stream, stream.visits(positions)), kept[rows]):
                different = different or f"{where}: other rows than one rank reads there"
        if not uneven and not (num_readers == 1).all():
            uneven = f"step {step:,}, {world_size} ranks: {int((num_readers != 1).sum())} rows not read by one rank"
        return uneven, different
