"""Counts of what cannot be used, by reason, and the share of it that a recipe allows."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from data_prep.listed_sample import LISTING_FAULTS, ListedSample
from ifvit.config.errors import UserError, printable

MAX_NAMED = 10  # ids that are named for each reason
MAX_IGNORED_KINDS = 20  # suffixes that are told apart


class Tally:
    """How many samples (or captions) cannot be used for which reason, with the ids of the first samples."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.first_ids: dict[str, list[int]] = {}

    def add(self, reason: str, sample_id: int, count: int = 1) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + count
        ids = self.first_ids.setdefault(reason, [])
        if len(ids) < MAX_NAMED and sample_id not in ids:
            ids.append(sample_id)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __str__(self) -> str:
        """2 damaged (ids 3, 7), 1 no captions (id 9)"""
        parts = []
        for reason, count in sorted(self.counts.items(), key=lambda item: (-item[1], item[0])):
            ids = self.first_ids[reason]
            more = ", ..." if count > len(ids) == MAX_NAMED else ""
            parts.append(f"{count:,} {reason} ({'id' if len(ids) == 1 else 'ids'} {', '.join(map(str, ids))}{more})")
        return ", ".join(parts)

    def as_json(self) -> dict[str, Any]:
        return {reason: {"count": self.counts[reason], "ids": self.first_ids[reason]} for reason in sorted(self.counts)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Tally":
        tally = cls()
        for reason, value in values.items():
            tally.counts[reason], tally.first_ids[reason] = value["count"], list(value["ids"])
        return tally


class BadLimit:
    """The bad samples known so far of `num_samples` listed ones; too many of them are an error, as soon as seen."""

    def __init__(self, max_bad_share: float, num_samples: int, known: Tally) -> None:
        self.max_bad_share = max_bad_share
        self.num_samples = num_samples
        self.tally = known

    def add(self, reason: str, sample_id: int, detail: str) -> None:
        """Count one more. Raises UserError where that is one too many; `detail` is told as an example."""
        self.tally.add(reason, sample_id)
        check_share(self.tally, self.num_samples, self.max_bad_share, "samples", f"; image {sample_id}: {detail}")


class Quarantine:
    """The samples of one shard that are left out, each with its reason; too many over all shards are an error."""

    def __init__(self, limit: BadLimit) -> None:
        self.limit = limit
        self.entries: list[dict[str, Any]] = []

    def add(self, sample: ListedSample, reason: str, detail: str) -> None:
        self.entries.append({"id": sample.id, "image": sample.place, "reason": reason, "detail": detail})
        if reason not in LISTING_FAULTS:  # those are known to the limit since the listing was made
            self.limit.add(reason, sample.id, f"{sample.place}: {detail}")


def check_share(bad: Tally, num_listed: int, max_bad_share: float, what: str, example: str = "") -> None:
    """Raises UserError where more than `max_bad_share` of the `num_listed` samples or captions is bad."""
    if bad.total > max_bad_share * num_listed:
        share = bad.total / num_listed
        raise UserError(
            f"data.max_bad_share: allows {max_bad_share:.3g} of the {num_listed:,} {what} to be unusable, but at least "
            f"{bad.total:,} ({share:.3g}) are: {bad}{example}; mend or remove them, or allow more with "
            f"--set data.max_bad_share=..."
        )


def count_ignored(ignored: Counter[str], suffix: str) -> None:
    """Count a file that is neither image nor captions; in a foreign source there may be any number of suffixes."""
    kind = printable(suffix[-20:]) or "(no suffix)"
    ignored[kind if kind in ignored or len(ignored) < MAX_IGNORED_KINDS else "others"] += 1
