"""Audits of orders that tests make up."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from unittest import mock

import numpy as np

from ifvit.data.audit import order_audit
from ifvit.data.audit.audited_shards import AuditedShards
from ifvit.data.audit.check import Check
from ifvit.data.audit.order_audit import AuditPlan, OrderAudit, audit_order
from ifvit.data.mixture import Mixture
from ifvit.data.order import Integers, SampleOrder
from ifvit.data.sample_stream import Order, SampleStream

SEED, SIZE, BATCH, DROPOUT = 1234, 20_000, 64, 0.1
PLAN = AuditPlan(world_sizes=(1, 2, 8), caption_dropout_prob=DROPOUT)


@contextlib.contextmanager
def no_progress(rows: int) -> Iterator[SimpleNamespace]:
    yield SimpleNamespace(advance=lambda count: None)


def shards_of(sizes: list[int] | Integers, name: str = "drawn") -> AuditedShards:
    """Image k has 1 + k % 5 captions."""
    counts = np.asarray(sizes, np.int64)
    return AuditedShards(
        name, counts, counts * 1000, 900, 60 * int(counts.sum()), lambda samples: 1 + samples % 5, 10**9
    )


EVEN = shards_of([500] * 40)


def audit_sets(
    make_stream: Callable[[], SampleStream], sets: Sequence[AuditedShards], plan: AuditPlan = PLAN
) -> OrderAudit:
    """Without taking times."""
    with (
        mock.patch.object(order_audit, "nanoseconds_per_index", lambda stream, chunk: 0.0),
        mock.patch.object(order_audit, "seek_seconds", lambda make_stream, step: 0.0),
    ):
        return audit_order(make_stream, sets, plan, no_progress)


def audit(
    make_order: Callable[[], Order],
    shards: AuditedShards = EVEN,
    plan: AuditPlan = PLAN,
    stream_type: type[SampleStream] = SampleStream,
) -> OrderAudit:
    return audit_sets(lambda: stream_type([make_order()], Mixture([1.0], SEED), BATCH), [shards], plan)


def failures(audited: OrderAudit) -> set[str]:
    return {check.name for check in audited.failed}


def checks_of(audited: OrderAudit) -> list[Check]:
    return [*audited.stream_checks, *(check for checks in audited.set_checks for check in checks)]


class RandomOrder(SampleOrder):
    """A true random permutation for each epoch."""

    def samples(self, positions: Integers) -> Integers:
        epochs = self.epochs(positions)
        result = np.empty_like(positions)
        for epoch in set(epochs.tolist()):
            order = random_permutation(self.num_samples, self.seed, epoch)
            result[epochs == epoch] = order[positions[epochs == epoch] % self.num_samples]
        return result


@functools.cache
def random_permutation(size: int, seed: int, epoch: int) -> Integers:
    return np.random.default_rng([seed, epoch]).permutation(size)


class Faulty(SampleOrder):
    """An order with a fault in `found`, which gives the samples at positions of one epoch."""

    def found(self, numbers: Integers, epoch: int) -> Integers:
        raise NotImplementedError

    def samples(self, positions: Integers) -> Integers:
        epochs = self.epochs(positions)
        result = np.empty_like(positions)
        for epoch in set(epochs.tolist()):
            rows = epochs == epoch
            result[rows] = self.found(positions[rows] - epoch * self.num_samples, epoch)
        return result

    def good(self, numbers: Integers, epoch: int) -> Integers:
        return SampleOrder.samples(self, numbers + epoch * self.num_samples)


class Identity(Faulty):
    def found(self, numbers: Integers, epoch: int) -> Integers:
        return numbers


class SameEachEpoch(Faulty):
    def found(self, numbers: Integers, epoch: int) -> Integers:
        return self.good(numbers, 0)


class ByPiece(SampleOrder):
    """Depends on how many rows are asked for at once, so on the number of ranks."""

    def samples(self, positions: Integers) -> Integers:
        return super().samples(positions)[::-1] if len(positions) == BATCH // 8 else super().samples(positions)
