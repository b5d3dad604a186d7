"""Makes a listing of a source's samples, or finds that the one that is there still holds."""

import hashlib
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_prep.bad_samples import MAX_NAMED, Tally
from data_prep.faults import capped
from data_prep.folder_lock import LOCK_FILE, one_at_a_time
from data_prep.listing import LISTING_FILE, Listing, found_listing, rows_name
from data_prep.shard_folder import finished_mark
from data_prep.sources import Source
from ifvit.config.errors import UserError
from ifvit.data.sealed_json import sealed_json
from ifvit.data.shard_format import ShardFiles, member_span, prompts_json
from ifvit.runtime.files import write_atomically

LISTING_VERSION = 1
SECONDS_PER_LINE = 30.0


def current_listing(source: Source, samples_per_shard: int, folder: Path) -> Listing:
    """The listing of `source` in `folder`, made where it is missing or does not hold any more.

    Several processes may ask at once. Raises UserError where there are shards with other samples than they would get.
    """
    described = description(source, samples_per_shard)
    if (found := found_listing(folder)) and fits(found, described):
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data.shards_root: cannot write to {folder} ({error.strerror})") from error
    with one_at_a_time(folder / LOCK_FILE, "lists the samples"):
        found = found_listing(folder)  # another process may have been faster
        if found and fits(found, described):
            return found
        refuse_changes(source, described, folder.parent)
        for path in (folder / LISTING_FILE, *folder.glob("shard-*.jsonl")):
            path.unlink(missing_ok=True)
        content = described | listed(
            source, samples_per_shard, lambda number, rows: write_atomically(folder / rows_name(number), rows)
        )
        write_atomically(folder / LISTING_FILE, sealed_json(content))
        return Listing(folder, content)


def dry_listing(source: Source, samples_per_shard: int, folder: Path) -> Listing:
    """The counts of the listing that `source` gives, from `folder` or found anew, with nothing written."""
    described = description(source, samples_per_shard)
    if (found := found_listing(folder)) and fits(found, described):
        return found
    return Listing(folder, described | listed(source, samples_per_shard, lambda number, rows: None))


def description(source: Source, samples_per_shard: int) -> dict[str, Any]:
    """What a listing is recognised by."""
    fingerprint = source.fingerprint()
    return {"version": LISTING_VERSION, "fingerprint": fingerprint, "samples_per_shard": samples_per_shard}


def fits(listing: Listing, described: dict[str, Any]) -> bool:
    return all(listing.content.get(name) == value for name, value in described.items())


def refuse_changes(source: Source, described: dict[str, Any], shards: Path) -> None:
    """Raises UserError where a finished shard has other samples than `source` would give it now."""
    marks = [ShardFiles(shards, int(path.stem[6:])) for path in shards.glob("shard-*.json") if path.stem[6:].isdigit()]
    if not marks:
        return
    samples_per_shard = described["samples_per_shard"]
    listing = Listing(shards, listed(source, samples_per_shard, lambda number, rows: None))
    changed = []
    for files in sorted(marks, key=lambda files: files.number):
        mark = finished_mark(files, None, {"data.samples_per_shard": samples_per_shard})
        is_listed = files.number < listing.num_shards
        if mark and not (is_listed and mark["listing_sha256"] == listing.shard_sha256(files.number)):
            changed.append(files.mark.name)
    if changed:
        names = ", ".join(capped(changed, MAX_NAMED, len(changed)))
        raise UserError(
            f"{source.field}: {len(changed)} of the {len(marks)} shards in {shards} were made from other images or "
            f"captions than are there now{source.change_hint}; delete the done-marks of those to have them made again "
            f"({names}), or use another --out"
        )


def listed(source: Source, samples_per_shard: int, write: Callable[[int, bytes], object]) -> dict[str, Any]:
    """Counts over all samples of `source`; `write(number, rows)` gets the rows of one shard after the other."""
    faults, dropped = Tally(), Tally()
    prompt_counts: Counter[int] = Counter()
    prompts_span = num_samples = 0
    shards: list[dict[str, Any]] = []
    samples = iter(source.samples())
    line_time = time.monotonic()
    while batch := list(itertools.islice(samples, samples_per_shard)):
        for sample in batch:
            for reason, count in sample.dropped.items():
                dropped.add(reason, sample.id, sample.place, count)
            if sample.fault:
                faults.add(sample.fault, sample.id, sample.place)
            else:
                prompt_counts[len(sample.prompts)] += 1
                prompts_span += member_span(len(prompts_json(sample.prompts)))
        rows = b"".join(sample.row() for sample in batch)
        write(len(shards), rows)
        num_samples += len(batch)
        shards.append({"samples": len(batch), "sha256": hashlib.sha256(rows).hexdigest()})
        if time.monotonic() - line_time > SECONDS_PER_LINE:
            print(f"listing: {num_samples:,} samples", file=sys.stderr, flush=True)
            line_time = time.monotonic()
    if not num_samples:
        raise UserError(f"{source.field}: {source.root} has no images")
    return {
        "samples": num_samples,
        "prompts": sum(count * number for count, number in prompt_counts.items()),
        "prompt_counts": {str(count): number for count, number in sorted(prompt_counts.items())},
        "prompts_span": prompts_span,
        "faults": faults.as_json(),
        "dropped_captions": dropped.as_json(),
        "ignored_files": dict(sorted(source.ignored.items())),
        "shards": shards,
    }
