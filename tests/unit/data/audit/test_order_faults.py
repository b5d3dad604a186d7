"""What ifvit/data/audit/order_audit.py sees of faulty orders: each fault is seen by the check that is there for it."""

import numpy as np
import pytest
from numpy.typing import NDArray

import ifvit.data.order
from ifvit.data.audit.caption_audit import CaptionAudit
from ifvit.data.audit.epoch_change import EpochChange
from ifvit.data.audit.order_audit import AuditPlan
from ifvit.data.audit.rank_balance import RankBalance
from ifvit.data.audit.set_audit import SetAudit
from ifvit.data.audit.shuffle_quality import BatchShards, BlockCounts, NeighbourCounts
from ifvit.data.audit.step_audit import StepAudit
from ifvit.data.lane_order import LaneOrder
from ifvit.data.order import Integers, SampleOrder
from ifvit.data.sample_stream import SampleStream
from tests.audited_orders import (
    BATCH,
    SEED,
    SIZE,
    ByPiece,
    Faulty,
    Identity,
    RandomOrder,
    SameEachEpoch,
    audit,
    failures,
    shards_of,
)


class Repeating(Faulty):
    """One sample comes twice and another never."""

    def found(self, numbers: Integers, epoch: int) -> Integers:
        samples = self.good(numbers, epoch)
        return np.where(samples == 777, 778, samples)


class Outside(Faulty):
    def found(self, numbers: Integers, epoch: int) -> Integers:
        return self.good(numbers, epoch) + 1


class Affine(Faulty):
    """A constant stride, another one in each epoch: far apart, but not mixed."""

    def found(self, numbers: Integers, epoch: int) -> Integers:
        return (numbers * (7919 + 2 * epoch) + 4321) % self.num_samples


class ShiftedEachEpoch(Faulty):
    def found(self, numbers: Integers, epoch: int) -> Integers:
        return (self.good(numbers, 0) + 17 * epoch) % self.num_samples


class ShuffledBlocks(Faulty):
    """Well mixed within a window of 2,000 samples, as a shuffle buffer is, and not beyond."""

    def found(self, numbers: Integers, epoch: int) -> Integers:
        inner = RandomOrder(2000, self.seed + epoch)
        return numbers // 2000 * 2000 + inner.samples(numbers % 2000)


class ShardByShard(Faulty):
    """The shards in random order, each read to its end."""

    def found(self, numbers: Integers, epoch: int) -> Integers:
        shards = np.random.default_rng([self.seed, epoch]).permutation(40)
        return shards[numbers // 500] * 500 + RandomOrder(500, epoch).samples(numbers % 500)


ALL_MIXING = {
    BlockCounts.name, NeighbourCounts.strides_name, NeighbourCounts.correlation_name, NeighbourCounts.shard_name,
    BatchShards.name,
}  # fmt: skip


@pytest.mark.parametrize(
    "order_type, seen",
    [
        (Repeating, {SetAudit.coverage_name}),
        (Outside, {SetAudit.coverage_name}),
        (Identity, {EpochChange.name, *ALL_MIXING}),
        (Affine, {NeighbourCounts.strides_name, BlockCounts.name}),
        (SameEachEpoch, {EpochChange.name}),
        (ShiftedEachEpoch, {EpochChange.name}),
        (ShuffledBlocks, {BlockCounts.name, NeighbourCounts.correlation_name, BatchShards.name}),
        (ShardByShard, {NeighbourCounts.shard_name, BatchShards.name}),
    ],
)
def test_a_faulty_order_is_seen_by_the_right_checks(order_type: type[Faulty], seen: set[str]) -> None:
    failed = failures(audit(lambda: order_type(SIZE, SEED)))
    assert seen <= failed
    assert failed <= seen | ALL_MIXING | {EpochChange.name}  # and no other check is alarmed


def test_what_is_missing_is_named() -> None:
    (found,) = [check.found for check in audit(lambda: Repeating(SIZE, SEED)).failed]
    assert found == "epoch 0: 1 of 20,000 missing [777], 1 repeated"


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_network_of_too_few_rounds_is_seen(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ifvit.data.order, "FEISTEL_ROUNDS", rounds)
    shards = shards_of([1000] * 300)
    assert NeighbourCounts.strides_name in failures(audit(lambda: SampleOrder(300_000, SEED), shards))


class ByWhatCameBefore(SampleOrder):
    """Goes on from where it was, wherever it is asked to begin: each sample once, but no way back in after a stop."""

    def __init__(self, num_samples: int, seed: int) -> None:
        super().__init__(num_samples, seed)
        self.place = 0

    def samples(self, positions: Integers) -> Integers:
        positions = self.place + np.arange(len(positions))
        self.place += len(positions)
        return super().samples(positions)


def test_an_order_that_depends_on_the_number_of_ranks_is_seen() -> None:
    audited = audit(lambda: ByPiece(SIZE, SEED))
    assert failures(audited) == {StepAudit.world_size_name}
    assert audited.failed[0].found == "step 0, rank 7 of 8: other rows than one rank reads there"


def test_an_order_that_does_not_resume_is_seen() -> None:
    assert StepAudit.resume_name in failures(audit(lambda: ByWhatCameBefore(SIZE, SEED)))


class Overlapping(SampleStream):
    """Rank 1 reads what rank 0 reads."""

    def rank_positions(self, step: int, rank: int, world_size: int) -> Integers:
        return super().rank_positions(step, 0 if rank == 1 else rank, world_size)


class Unequal(SampleStream):
    """The first rank has one row more than its share, the last one fewer."""

    def rank_positions(self, step: int, rank: int, world_size: int) -> Integers:
        rows = np.array_split(np.arange(BATCH - 1), world_size)[rank] + (rank > 0)
        return step * BATCH + (np.append(rows, 0) if rank == 0 else rows)


class RowTwice(SampleStream):
    """Each rank reads its first row twice and its last one never."""

    def rank_positions(self, step: int, rank: int, world_size: int) -> Integers:
        positions = super().rank_positions(step, rank, world_size)
        return np.append(positions[0], positions[:-1])


class OtherRanks(SampleStream):
    """Counts rows as another rank's than reads them."""

    def ranks(self, positions: Integers, world_size: int) -> Integers:
        return positions % self.global_batch_size // (self.global_batch_size // world_size)


@pytest.mark.parametrize("stream_type", [Overlapping, Unequal, RowTwice, OtherRanks])
def test_ranks_that_do_not_share_equally_are_seen(stream_type: type[SampleStream]) -> None:
    audited = audit(lambda: SampleOrder(SIZE, SEED), stream_type=stream_type)
    assert StepAudit.rows_name in failures(audited)


class SortedInBatches(SampleStream):
    """The first of two ranks has the rows of the smaller half of the shards, however large."""

    def ranks(self, positions: Integers, world_size: int) -> Integers:
        if world_size != 2:
            return super().ranks(positions, world_size)
        return (self.visits(positions).samples >= 15_000).astype(np.int64)


def test_ranks_that_need_more_shards_than_others_are_seen() -> None:
    audited = audit(lambda: SampleOrder(SIZE, SEED), stream_type=SortedInBatches)
    assert f"{RankBalance.name} (2 ranks)" in failures(audited)


class FirstCaptions(SampleOrder):
    """The first caption a little too often."""

    def caption_choices(self, positions: Integers, samples: Integers, num_captions: Integers) -> Integers:
        choices = super().caption_choices(positions, samples, num_captions)
        return np.where(self.draws("bias", positions, samples) < 0.1, 0, choices)


class TooManyCaptions(SampleOrder):
    def caption_choices(self, positions: Integers, samples: Integers, num_captions: Integers) -> Integers:
        return super().caption_choices(positions, samples, num_captions + 1)


class SameCaptions(SampleOrder):
    def caption_choices(self, positions: Integers, samples: Integers, num_captions: Integers) -> Integers:
        return super().caption_choices(positions % self.num_samples, samples, num_captions)


class DroppedTooOften(SampleOrder):
    def is_dropped(self, positions: Integers, samples: Integers, caption_dropout_prob: float) -> NDArray[np.bool_]:
        return super().is_dropped(positions, samples, 1.2 * caption_dropout_prob)


@pytest.mark.parametrize(
    "order_type, seen",
    [
        (FirstCaptions, {CaptionAudit.uniform_name}),
        (TooManyCaptions, {CaptionAudit.uniform_name}),
        (SameCaptions, {CaptionAudit.anew_name}),
        (DroppedTooOften, {CaptionAudit.dropped_name}),
    ],
)
def test_faulty_captions_are_seen(order_type: type[SampleOrder], seen: set[str]) -> None:
    failed = failures(audit(lambda: order_type(SIZE, SEED)))
    assert seen <= failed <= {CaptionAudit.uniform_name, CaptionAudit.anew_name, CaptionAudit.dropped_name}


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_captions_dropped_never_or_always(probability: float) -> None:
    assert failures(audit(lambda: SampleOrder(SIZE, SEED), plan=AuditPlan((1,), probability))) == set()


class SameLanesEachEpoch(LaneOrder):
    def samples(self, positions: Integers) -> Integers:
        return super().samples(positions % self.num_samples)


def test_lanes_that_are_the_same_in_each_epoch_are_seen() -> None:
    sizes = [100] * 200
    assert failures(audit(lambda: SameLanesEachEpoch(sizes, SEED, 16), shards_of(sizes))) == {EpochChange.name}


@pytest.mark.parametrize("sizes", [[20] * 4, [200, 200], [1000], [400]])
def test_small_sets_in_lanes_are_not_accused(sizes: list[int]) -> None:
    for seed in range(5):
        assert failures(audit(lambda seed=seed: LaneOrder(sizes, seed, 4), shards_of(sizes))) == set()
