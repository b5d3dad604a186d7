"""The audit of one set of samples: is each there once an epoch, and how well are they mixed?"""

import numpy as np

from ifvit.data.audit.audited_shards import AuditedShards
from ifvit.data.audit.caption_audit import CaptionAudit
from ifvit.data.audit.check import Check, exact_check, for_comparison, not_judged
from ifvit.data.audit.epoch_change import EpochChange
from ifvit.data.audit.order_inverse import epoch_positions
from ifvit.data.audit.sample_coverage import SampleCoverage
from ifvit.data.audit.shuffle_quality import BatchShards, BlockCounts, NeighbourCounts, block_check
from ifvit.data.lane_order import LaneOrder
from ifvit.data.order import Integers, SampleOrder
from ifvit.data.sample_stream import Order, Visits

NUM_LOOKED_UP = 10_000_000  # samples, where not all positions are visited
CHUNK = 1 << 16


class SetAudit:
    """Takes visits of its set in the order of the stream; `num_expected` is about how many will come per epoch.

    `visits_all` says that whole epochs come, `num_epochs` of them; later ones are left out.
    """

    coverage_name = "each sample exactly once in an epoch"

    def __init__(
        self,
        shards: AuditedShards,
        order: Order,
        num_epochs: int,
        caption_dropout_prob: float,
        num_expected: int,
        visits_all: bool,
    ) -> None:
        self.shards = shards
        self.order = order
        self.num_epochs = num_epochs
        self.visits_all = visits_all
        self.coverages: dict[int, SampleCoverage] = {}  # by epoch; only those not yet complete
        self.num_complete = 0
        self.num_outside = 0
        self.blocks = [BlockCounts(shards.num_samples, num_expected) for _ in range(num_epochs)]
        self.neighbours = NeighbourCounts(shards, num_expected)
        self.batches = BatchShards(shards)
        self.change = EpochChange(order, num_expected)
        self.captions = CaptionAudit(order, caption_dropout_prob)

    def add(self, visits: Visits, steps: Integers) -> None:
        """One epoch's visits to the set, and the steps that they come in."""
        epoch = int(visits.epochs[0])
        is_inside = (visits.samples >= 0) & (visits.samples < self.shards.num_samples)
        if not is_inside.all():
            self.num_outside += int((~is_inside).sum())
            visits, steps = visits.rows(is_inside), steps[is_inside]
        samples, positions = visits.samples, visits.own_positions
        shards = self.shards.shards_of(samples)
        if self.visits_all:
            self.cover(epoch, samples)
        self.blocks[epoch].add(positions - epoch * self.shards.num_samples, samples)
        self.neighbours.add(samples, shards)
        self.batches.add(steps, shards)
        if not self.change.is_done:
            self.change.add(positions, samples)
        if not self.captions.is_done:
            rows = samples < self.shards.num_caption_samples
            self.captions.add(positions[rows], samples[rows], self.shards.num_captions(samples[rows]))

    def cover(self, epoch: int, samples: Integers) -> None:
        coverage = self.coverages.setdefault(epoch, SampleCoverage(self.shards.num_samples))
        coverage.add(samples)
        if coverage.num_visits == coverage.num_samples == coverage.num_covered:
            del self.coverages[epoch]
            self.num_complete += 1

    def checks(self) -> list[Check]:
        """In lanes few shards are in use at a time, by design: a full shuffle's numbers stand there for comparison."""
        mixing = [block_check(self.blocks), *self.neighbours.checks(), self.batches.check()]
        return [
            self.coverage_check() if self.visits_all else self.lookup_check(),
            self.change.lane_check(self.order.window) if isinstance(self.order, LaneOrder) else self.change.check(),
            *(map(for_comparison, mixing) if self.has_lanes else mixing),
            *self.captions.checks(),
        ]

    @property
    def has_lanes(self) -> bool:
        return isinstance(self.order, LaneOrder)

    def coverage_check(self) -> Check:
        size = self.shards.num_samples
        if self.num_outside:
            return exact_check(self.coverage_name, False, f"{self.num_outside:,} visits to samples that do not exist")
        for epoch, coverage in sorted(self.coverages.items()):
            missing, repeated = size - coverage.num_covered, coverage.num_visits - coverage.num_covered
            found = f"epoch {epoch}: {missing:,} of {size:,} missing {coverage.missing(3)}, {repeated:,} repeated"
            return exact_check(self.coverage_name, False, found)
        found = f"{size:,} of {size:,}, 0 missing, 0 repeated"
        every = f" in each of {self.num_complete} epochs" * (self.num_complete > 1)
        return exact_check(self.coverage_name, self.num_complete == self.num_epochs, found + every)

    def lookup_check(self) -> Check:
        """Looks random samples up by running the order backwards, and asks the order itself what stands there.

        An epoch has N positions, so as many visits are repeated as samples are missing. Were u of N missing, n samples
        looked up would all be found with probability (1 - u / N)^n: with 95% confidence u < 3 N / n.
        """
        if not isinstance(self.order, SampleOrder):
            return not_judged(self.coverage_name, "this order cannot be run backwards: leave out --sampled")
        size = self.shards.num_samples
        random = np.random.default_rng(0)
        num_lost = 0
        for chunk in range(NUM_LOOKED_UP // CHUNK):
            epoch = chunk % self.num_epochs
            samples = random.integers(0, size, CHUNK)
            positions = epoch_positions(self.order, samples, epoch)
            is_inside = (positions >= 0) & (positions < size)
            found = self.order.samples(positions[is_inside] + epoch * size)
            num_lost += CHUNK - int((found == samples[is_inside]).sum())
        looked_up = f"{NUM_LOOKED_UP // CHUNK * CHUNK:,} of {size:,} looked up"
        found_text = f"{looked_up}, {num_lost:,} are not there" if num_lost else f"{looked_up}: all are there"
        return exact_check(self.coverage_name, num_lost == 0, found_text)
