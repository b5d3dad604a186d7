"""ifvit/data/audit/order_audit.py and its parts: a good order passes. Of a bad one see test_order_faults.py."""

from collections import defaultdict

import numpy as np
import pytest

from ifvit.data.audit import set_audit, stream_steps
from ifvit.data.audit.audited_shards import AuditedShards
from ifvit.data.audit.epoch_change import EpochChange
from ifvit.data.audit.order_audit import AuditPlan
from ifvit.data.audit.set_audit import SetAudit
from ifvit.data.audit.shuffle_quality import BatchShards, BlockCounts, NeighbourCounts
from ifvit.data.audit.step_audit import StepAudit
from ifvit.data.order import Integers, SampleOrder
from ifvit.data.sample_stream import SampleStream
from tests.audited_orders import (
    BATCH,
    DROPOUT,
    EVEN,
    PLAN,
    SEED,
    SIZE,
    ByPiece,
    Faulty,
    Identity,
    RandomOrder,
    SameEachEpoch,
    audit,
    audit_sets,
    checks_of,
    failures,
    shards_of,
)


@pytest.mark.parametrize("num_epochs", [1, 3])
@pytest.mark.parametrize("sizes", [[500] * 40, [700, 0, 3000, 12, 16_288], [1] * 3000, [5000]], ids=len)
def test_a_good_order_passes(sizes: list[int], num_epochs: int) -> None:
    shards = shards_of(sizes)
    plan = AuditPlan(PLAN.world_sizes, DROPOUT, num_epochs)
    audited = audit(lambda: SampleOrder(shards.num_samples, SEED), shards, plan)
    assert failures(audited) == set()
    assert audited.visits_all
    open_ = {check.name for check in checks_of(audited) if check.verdict == "not judged"}
    assert open_ == ({NeighbourCounts.shard_name, BatchShards.name} if len(sizes) == 1 else set())


@pytest.mark.parametrize("size", [1, 2, 10, 63, 64, 65, 200])
def test_few_samples_are_not_judged_by_chance(size: int) -> None:
    shards = shards_of([1] * size)
    audited = audit(lambda: SampleOrder(size, SEED), shards, AuditPlan((1, 4), DROPOUT, 2))
    assert failures(audited) == set()
    verdicts = {check.name: check.verdict for check in checks_of(audited)}
    assert verdicts[SetAudit.coverage_name] == verdicts[StepAudit.resume_name] == "pass"
    assert verdicts[NeighbourCounts.strides_name] == "not judged"


def test_a_mixture_passes_set_by_set() -> None:
    sets = [shards_of([500] * 10, "first"), shards_of([300, 20, 680], "second")]
    sizes = [shards.num_samples_of for shards in sets]
    audited = audit_sets(lambda: SampleStream.of(sizes, [1.0, 3.0], SEED, BATCH), sets)
    assert failures(audited) == set()
    assert [checks[0].found for checks in audited.set_checks] == [
        "5,000 of 5,000, 0 missing, 0 repeated",
        "1,000 of 1,000, 0 missing, 0 repeated",
    ]


def test_lanes_pass_but_their_mixing_is_only_compared() -> None:
    sizes = np.full(200, 100)
    audited = audit_sets(lambda: SampleStream.of([sizes], [1.0], SEED, BATCH, 16, [True]), [shards_of(sizes)])
    assert failures(audited) == set()
    open_ = {check.name for check in checks_of(audited) if check.verdict == "not judged"}
    assert open_ == {
        BlockCounts.name, NeighbourCounts.strides_name, NeighbourCounts.correlation_name, NeighbourCounts.shard_name,
        BatchShards.name,
    }  # fmt: skip
    touched = {each.world_size: each.first_steps.as_json()["shards_touched"] for each in audited.balances}
    assert touched[8][1] < 200 / 4  # of 8 ranks each has two of the 16 lanes


def test_the_reading_of_each_rank() -> None:
    audited = audit(lambda: SampleOrder(SIZE, SEED))
    report = audited.as_json([EVEN])
    assert report["verdict"] == "pass"
    reading = {each["world_size"]: each for each in report["ranks"]}
    assert reading[8]["first_steps"]["steps"] == 313
    assert reading[8]["first_steps"]["rows"] == [313 * 8] * 2
    assert reading[8]["first_steps"]["bytes_read"] == [313 * 8 * 900] * 2
    assert reading[1]["first_epoch"]["rows"] == [SIZE, SIZE]
    assert reading[8]["first_epoch"]["rows"] == [SIZE // 8] * 2  # the last batch goes on into the next epoch
    assert reading[1]["first_epoch"]["bytes_of_shards_touched"] == [SIZE * 1000] * 2


def test_over_random_permutations_each_z_is_a_standard_normal_number() -> None:
    shards = shards_of([40] * 50)
    found = defaultdict(list)
    for seed in range(60):
        for check in checks_of(audit(lambda seed=seed: RandomOrder(2000, seed), shards, AuditPlan((1,), DROPOUT))):
            if check.z is not None:
                found[check.name].append(check.z)
    assert len(found) == 9
    for name, values in found.items():
        assert abs(np.mean(values)) < 4 / np.sqrt(60), name
        assert 0.6 < np.std(values) < 1.4, name


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_steps, "SAMPLED_ROWS", 200_000)
    monkeypatch.setattr(set_audit, "NUM_LOOKED_UP", 200_000)


def huge() -> AuditedShards:
    return shards_of(np.full(1_000_000, 1000))


@pytest.mark.usefixtures("small_sample")
def test_a_billion_samples_are_looked_at_in_part() -> None:
    shards = huge()
    audited = audit(lambda: SampleOrder(10**9, SEED), shards, AuditPlan((1, 8), DROPOUT, is_sampled=True))
    assert failures(audited) == set()
    assert not audited.visits_all
    assert 200_000 <= audited.num_rows < 300_000
    assert audited.last_step == 10**9 // BATCH - 1
    assert audited.as_json([shards])["ranks"][0]["first_epoch"] is None


class HalfRepeating(Faulty):
    """Even samples come twice, odd ones never."""

    def found(self, numbers: Integers, epoch: int) -> Integers:
        return self.good(numbers, epoch) // 2 * 2


@pytest.mark.usefixtures("small_sample")
@pytest.mark.parametrize(
    "order_type, seen",
    [
        (HalfRepeating, {SetAudit.coverage_name}),
        (Identity, {SetAudit.coverage_name, EpochChange.name, NeighbourCounts.strides_name, BatchShards.name}),
        (SameEachEpoch, {EpochChange.name}),
        (ByPiece, {StepAudit.world_size_name}),
    ],
)
def test_faults_are_seen_in_a_part(order_type: type[SampleOrder], seen: set[str]) -> None:
    plan = AuditPlan((1, 8), DROPOUT, is_sampled=True)
    assert seen <= failures(audit(lambda: order_type(10**9, SEED), huge(), plan))


@pytest.mark.usefixtures("small_sample")
def test_a_small_set_is_looked_at_whole_even_so() -> None:
    audited = audit(lambda: SampleOrder(SIZE, SEED), plan=AuditPlan((1,), DROPOUT, is_sampled=True))
    assert audited.visits_all
    assert audited.set_checks[0][0].found == "20,000 of 20,000, 0 missing, 0 repeated"
