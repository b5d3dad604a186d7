"""Counts of what cannot be used, by reason, and the share of it that a recipe allows."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from data_prep.faults import capped
from data_prep.listed_sample import LISTING_FAULTS, ListedSample
from ifvit.config.errors import UserError, printable

MAX_NAMED = 10  # ids that are named for each reason
MAX_SHOWN = 60  # characters of a path, from its end
MISSING_FILE = "missing file"  # as ifvit/data/images.py calls it: a shard is made anew when the file is there
MAX_IGNORED_KINDS = 20  # suffixes that are told apart


class Tally:
    """How many samples (or captions) cannot be used for which reason, with the ids of the first samples, and where the
    very first one lies: an id alone may be a mere position.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.first_ids: dict[str, list[int]] = {}
        self.first_image: dict[str, str] = {}

    def add(self, reason: str, sample_id: int, image: str, count: int = 1) -> None:
        """`image` is the sample's place."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        ids = self.first_ids.setdefault(reason, [])
        self.first_image.setdefault(reason, image)
        if len(ids) < MAX_NAMED and sample_id not in ids:
            ids.append(sample_id)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __str__(self) -> str:
        """2 damaged (ids 3, 7; the first is a/3.jpg), 1 no captions (id 9, a/9.jpg)"""
        parts = []
        for reason, count in sorted(self.counts.items(), key=lambda item: (-item[1], item[0])):
            ids = self.first_ids[reason]
            more = ", ..." if count > len(ids) == MAX_NAMED else ""
            named, before = ("id", ", ") if len(ids) == 1 else ("ids", "; the first is ")
            first = f"{before}{self.shown_image(reason)}" if self.first_image[reason] else ""
            parts.append(f"{count:,} {reason} ({named} {', '.join(map(str, ids))}{more}{first})")
        return ", ".join(parts)

    def shown_image(self, reason: str) -> str:
        """Where the first sample that is left out for `reason` lies, for a person."""
        image = printable(self.first_image[reason])
        return image if len(image) <= MAX_SHOWN else f"...{image[3 - MAX_SHOWN :]}"

    def as_json(self) -> dict[str, Any]:
        return {
            reason: {"count": self.counts[reason], "ids": self.first_ids[reason], "image": self.first_image[reason]}
            for reason in sorted(self.counts)
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Tally":
        tally = cls()
        for reason, value in values.items():
            tally.counts[reason], tally.first_ids[reason] = value["count"], list(value["ids"])
            tally.first_image[reason] = value.get("image", "")  # sets that were made earlier lack it
        return tally


class BadLimit:
    """The bad samples known so far of `num_samples` listed ones; too many of them are an error, as soon as seen."""

    def __init__(self, max_bad_share: float, num_samples: int, known: Tally) -> None:
        self.max_bad_share = max_bad_share
        self.num_samples = num_samples
        self.tally = known
        self.marks: Sequence[str] = ()  # what `marks_to_delete` gives for the finished shards

    def add(self, reason: str, sample_id: int, image: str, detail: str) -> None:
        """Count one more. Raises UserError where that is one too many; `detail` is told as an example."""
        self.tally.add(reason, sample_id, image)
        example = f"; image {sample_id}: {image}: {detail}"
        check_share(self.tally, self.num_samples, self.max_bad_share, "samples", example, self.marks)

    def add_finished(self, mark: Mapping[str, Any]) -> None:
        """Count what a finished shard leaves out. Raises UserError as `add` does."""
        for entry in mark["quarantined"]:
            if entry["reason"] not in LISTING_FAULTS:
                self.add(entry["reason"], entry["id"], entry["image"], entry["detail"])


class Quarantine:
    """The samples of one shard that are left out, each with its reason; too many over all shards are an error."""

    def __init__(self, limit: BadLimit) -> None:
        self.limit = limit
        self.entries: list[dict[str, Any]] = []

    def add(self, sample: ListedSample, reason: str, detail: str) -> None:
        self.entries.append({"id": sample.id, "image": sample.place, "reason": reason, "detail": detail})
        if reason not in LISTING_FAULTS:  # those are known to the limit since the listing was made
            self.limit.add(reason, sample.id, sample.place, detail)


def marks_to_delete(marks: Iterable[Mapping[str, Any]]) -> list[str]:
    """The files of those done-marks that keep images out also after these are mended."""
    kept_out = (*LISTING_FAULTS, MISSING_FILE)
    return [
        PurePath(mark["tar"]).with_suffix(".json").name
        for mark in marks
        if any(entry["reason"] not in kept_out for entry in mark["quarantined"])
    ]


def deletion(marks: Sequence[str]) -> str:
    """What is to be deleted once images are mended."""
    return f"delete {', '.join(capped(marks, MAX_NAMED, len(marks)))}"


def check_share(
    bad: Tally, num_listed: int, max_bad_share: float, what: str, example: str = "", marks: Sequence[str] = ()
) -> None:
    """Raises UserError where more than `max_bad_share` of the `num_listed` samples or captions is bad.

    `marks` are those to delete.
    """
    if bad.total > max_bad_share * num_listed:
        share = bad.total / num_listed
        raise UserError(
            f"data.max_bad_share: allows {max_bad_share:.3g} of the {num_listed:,} {what} to be unusable, but at least "
            f"{bad.total:,} ({share:.3g}) are: {bad}{example}; mend or remove them"
            f"{f' and {deletion(marks)}' if marks else ''}, or allow more with --set data.max_bad_share=..."
        )


def count_ignored(ignored: Counter[str], suffix: str) -> None:
    """Count a file that is neither image nor captions; in a foreign source there may be any number of suffixes."""
    kind = printable(suffix[-20:]) or "(no suffix)"
    ignored[kind if kind in ignored or len(ignored) < MAX_IGNORED_KINDS else "others"] += 1
