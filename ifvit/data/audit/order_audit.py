"""Audit of the order in which a run would read its samples: one pass through the stream, as training sees it.

Works on the numbers of samples in shards alone, so it fits shards that nobody has made, and any number of ranks.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ifvit.data.audit.audited_shards import AuditedShards
from ifvit.data.audit.check import Check
from ifvit.data.audit.order_speed import CHUNKS, nanoseconds_per_index, seek_seconds
from ifvit.data.audit.rank_balance import RankBalance
from ifvit.data.audit.set_audit import SetAudit
from ifvit.data.audit.step_audit import StepAudit
from ifvit.data.audit.stream_steps import StreamSteps
from ifvit.data.sample_stream import SampleStream, Visits


@dataclass(frozen=True)
class AuditPlan:
    """`is_sampled`: about ten million positions, and as many samples looked up, instead of whole epochs."""

    world_sizes: Sequence[int]
    caption_dropout_prob: float
    num_epochs: int = 1
    is_sampled: bool = False


@dataclass(frozen=True)
class OrderAudit:
    """What was found. `set_checks` has a list for each set, `stream_checks` is of all sets together."""

    num_rows: int  # positions of the stream that were visited
    visits_all: bool
    stream_checks: list[Check]
    set_checks: list[list[Check]]
    balances: list[RankBalance]
    nanoseconds_per_index: dict[int, float | None]  # by size of chunk; None where an epoch is shorter
    seek_seconds: float  # from nothing to the last step of the last epoch
    last_step: int

    @property
    def failed(self) -> list[Check]:
        every = [*self.stream_checks, *(check for checks in self.set_checks for check in checks)]
        return [check for check in every if check.verdict == "FAIL"]

    def as_json(self, sets: Sequence[AuditedShards]) -> dict[str, Any]:
        return {
            "verdict": "FAIL" if self.failed else "pass",
            "positions": self.num_rows,
            "whole_epochs": self.visits_all,
            "checks": [asdict(check) for check in self.stream_checks],
            "sets": [
                {**shards.as_json(), "checks": [asdict(check) for check in checks]}
                for shards, checks in zip(sets, self.set_checks, strict=True)
            ],
            "ranks": [
                {
                    "world_size": balance.world_size,
                    "first_steps": {"steps": balance.num_steps, **balance.first_steps.as_json()},
                    "first_epoch": balance.epoch.as_json() if self.visits_all else None,
                }
                for balance in self.balances
            ],
            "nanoseconds_per_index": self.nanoseconds_per_index,
            "seek_seconds": self.seek_seconds,
            "last_step": self.last_step,
        }


def audit_order(
    make_stream: Callable[[], SampleStream],
    sets: Sequence[AuditedShards],
    plan: AuditPlan,
    make_progress: Callable[[int], Any],
) -> OrderAudit:
    """Every check, of all epochs and ranks of `plan`. The stream's orders are those of `sets`.

    `make_progress(rows)` gives a context with `advance(rows)`. Each of plan.world_sizes divides the global batch.
    """
    stream = make_stream()
    steps = StreamSteps(stream, plan.num_epochs, plan.is_sampled)
    batch_size = stream.global_batch_size
    shares = stream.mixture.counts / stream.mixture.counts.sum()
    set_audits = [
        SetAudit(
            shards,
            order,
            plan.num_epochs,
            plan.caption_dropout_prob,
            expected_visits(steps, shards, share * batch_size, plan.num_epochs),
            steps.visits_all,
        )
        for shards, order, share in zip(sets, stream.orders, shares, strict=True)
    ]
    balances = [RankBalance(world_size, sets, shares, steps.num_first) for world_size in plan.world_sizes]
    step_audit = StepAudit(make_stream, plan.caption_dropout_prob)
    with make_progress(steps.num_visited * batch_size) as progress:
        for first, stop in steps.runs:
            visits = stream.visits(stream.batch_positions(first, stop))
            for step in steps.kept & set(range(first, stop)):
                rows = slice((step - first) * batch_size, (step - first + 1) * batch_size)
                step_audit.keep(step, stream, visits.rows(rows))
            add_to_sets(visits, set_audits, batch_size, plan.num_epochs)
            add_to_ranks(stream, visits, balances, sets, first < steps.num_first)
            progress.advance(len(visits.positions))
    return OrderAudit(
        num_rows=steps.num_visited * batch_size,
        visits_all=steps.visits_all,
        stream_checks=[
            *step_audit.rank_checks(plan.world_sizes),
            step_audit.resume_check(),
            *(balance.touch_check() for balance in balances if balance.world_size > 1),
        ],
        set_checks=[set_audit.checks() for set_audit in set_audits],
        balances=balances,
        nanoseconds_per_index={chunk: nanoseconds_per_index(stream, chunk) for chunk in CHUNKS},
        seek_seconds=seek_seconds(make_stream, steps.num_steps - 1),
        last_step=steps.num_steps - 1,
    )


def expected_visits(steps: StreamSteps, shards: AuditedShards, rows_per_step: float, num_epochs: int) -> int:
    """About how many positions of an epoch of this set are visited."""
    if steps.visits_all:
        return shards.num_samples
    return min(shards.num_samples, int(steps.num_visited * rows_per_step / num_epochs))


def add_to_sets(visits: Visits, set_audits: Sequence[SetAudit], batch_size: int, num_epochs: int) -> None:
    for number, set_audit in enumerate(set_audits):
        epochs = visits.epochs[visits.sets == number]
        for epoch in range(int(epochs.min(initial=num_epochs)), min(int(epochs.max(initial=0)) + 1, num_epochs)):
            own = visits.of_set(number, epoch)
            if len(own.positions):
                set_audit.add(own, own.positions // batch_size)


def add_to_ranks(
    stream: SampleStream,
    visits: Visits,
    balances: Sequence[RankBalance],
    sets: Sequence[AuditedShards],
    is_first: bool,
) -> None:
    """`is_first`: the visits are of the first steps, whose reading is compared between ranks."""
    first_shards = np.cumsum([0, *(shards.num_shards for shards in sets)])
    shards = np.empty_like(visits.samples)
    for number, audited in enumerate(sets):
        rows = np.flatnonzero(visits.sets == number)
        inside = np.clip(visits.samples[rows], 0, audited.num_samples - 1)  # that all are is another check
        shards[rows] = first_shards[number] + audited.shards_of(inside)
    in_epoch = visits.epochs == 0
    for balance in balances:
        ranks = stream.ranks(visits.positions, balance.world_size)
        if is_first:
            balance.first_steps.add(ranks, visits.sets, shards)
        balance.epoch.add(ranks[in_epoch], visits.sets[in_epoch], shards[in_epoch])
