"""When damaged shards must not be removed: what would be made in their place is not what they were."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from data_prep.array_task import ArrayTask
from data_prep.bad_samples import MISSING_FILE, check_share
from data_prep.faults import capped
from data_prep.listed_sample import ListedSample
from data_prep.listing import LISTING_FOLDER, Listing, found_listing
from data_prep.listing_stage import description, fits, listed
from data_prep.set_description import DoneMark, tally_of
from data_prep.set_verification import SetVerification
from data_prep.shard_folder import shown
from data_prep.shard_job import ShardJob
from data_prep.shard_units import shard_settings
from data_prep.sources import Source, source_of
from ifvit.config.errors import UserError, printable
from ifvit.config.schema import Recipe
from ifvit.data.shard_format import ShardFiles
from ifvit.encoders.loading import load_encoders

MAX_NAMED = 10

Marks = Mapping[int, DoneMark | None]  # of the damaged shards, None where the mark itself is damaged


def refuse_changes(found: SetVerification, marks: Marks, recipe: Recipe) -> None:
    """Raises UserError where the shards that `recipe` makes are not those that were there. Writes nothing."""
    source = source_of(recipe.data)
    refuse_other_settings(found, recipe)
    gone: dict[int, dict[int, str]] = {}  # of each damaged shard: images by id
    listing = sound_listing(found, source, recipe.data.samples_per_shard)
    if listing:
        for number in marks:
            if number < listing.num_shards:
                gone[number] = gone_images(listing.shard(number), source.root)
    else:

        def look(number: int, rows: bytes) -> None:
            if number in marks:
                gone[number] = gone_images(map(ListedSample.from_row, rows.splitlines()), source.root)

        listing = Listing(found.folder / LISTING_FOLDER, listed(source, recipe.data.samples_per_shard, look))
        refuse_other_samples(found, listing, source)
    refuse_missing_images(found, marks, gone)
    refuse_bad_share(found, listing, recipe)


def refuse_foreign_files(found: SetVerification) -> None:
    """Raises UserError where the folder has shards that are none of the set's."""
    if foreign := found.faults.foreign:
        raise UserError(*(f"{found.folder}/{fault}" for fault in capped(map(str, foreign), MAX_NAMED, len(foreign))))


def refuse_other_settings(found: SetVerification, recipe: Recipe) -> None:
    """Raises UserError where the sound shards were made with other settings or encoders than the recipe's."""
    encoders = load_encoders(recipe, torch.device("cpu"))
    ours = shard_settings(recipe, encoders.autoencoder.identity, encoders.text_encoder.identity)
    theirs: dict[str, Any] = {}
    if found.index:
        theirs |= found.index.settings
        measures = found.index.scaling_factor == found.index.measured_scaling_factor
        theirs["encoders.scaling_factor"] = None if measures else found.index.scaling_factor
        ours["encoders.scaling_factor"] = recipe.encoders.scaling_factor
    if found.mark:
        theirs |= found.mark.settings
    if other := [field for field, value in theirs.items() if ours.get(field) != value]:
        raise UserError(
            *(
                f"{field}: is {shown(ours.get(field))}, but the shards in {found.folder} were made with "
                f"{shown(theirs[field])}; give the recipe that made them"
                for field in other
            )
        )


def sound_listing(found: SetVerification, source: Source, samples_per_shard: int) -> Listing | None:
    """The listing that is there, None where it must be made again."""
    if has_listing_faults(found):
        return None
    listing = found_listing(found.folder / LISTING_FOLDER)
    return listing if listing and fits(listing, description(source, samples_per_shard)) else None


def has_listing_faults(found: SetVerification) -> bool:
    return any(name.startswith(f"{LISTING_FOLDER}/") for name in found.faults.reasons)


def refuse_other_samples(found: SetVerification, listing: Listing, source: Source) -> None:
    """Raises UserError where a shard whose done-mark is sound has other samples than `listing`."""
    files = [ShardFiles(found.folder, number) for number in range(found.num_shards)]
    marks = [DoneMark.of(each) for each in files if each.mark.name not in found.faults.reasons]
    expected = {
        ShardFiles(found.folder, number).tar.name: listing.shard_sha256(number) for number in range(listing.num_shards)
    }
    if changed := [mark.tar for mark in marks if mark.listing_sha256 != expected.get(mark.tar)]:
        raise UserError(
            f"{source.field}: {len(changed):,} of the {found.num_shards:,} shards in {found.folder} were made from "
            f"other images or captions than are there now, such as {changed[0]}{source.change_hint}"
        )


def refuse_missing_images(found: SetVerification, marks: Marks, gone: Mapping[int, Mapping[int, str]]) -> None:
    """Raises UserError where images of the damaged shards are gone that were there when these were made.

    Where a done-mark is damaged only index.json knows which were not: how many, and the ids of the first ones.
    """
    missing: dict[int, list[str]] = {}  # by shard: images that are not known to have been gone before
    first_ids, num_unnamed = gone_before(found)
    for number in gone:
        mark = marks[number]
        known = {sample.id for sample in mark.quarantined if sample.reason == MISSING_FILE} if mark else first_ids
        missing[number] = [image for id_, image in gone[number].items() if id_ not in known]
    without_mark = [number for number in missing if marks[number] is None]
    if sum(len(missing[number]) for number in without_mark) <= num_unnamed:
        num_unnamed = 0
        for number in without_mark:
            del missing[number]
    if images := [image for some in missing.values() for image in some]:
        tars = [ShardFiles(found.folder, number).tar.name for number, some in missing.items() if some]
        shards = ", ".join(capped(tars, MAX_NAMED, len(tars)))
        before = f"; {num_unnamed:,} of them were gone before" if num_unnamed else ""
        raise UserError(f"{images[0]}: is gone, one of {len(images):,} images of {shards}{before}")


def gone_before(found: SetVerification) -> tuple[set[int], int]:
    """Of the images that index.json has as missing: the ids that it names, and how many more of them there are in the
    shards whose done-marks cannot be read.
    """
    entry = found.index.quarantined.get(MISSING_FILE) if found.index else None
    if entry is None:
        return set(), 0
    elsewhere = found.quarantined  # of the done-marks that can be read
    named = set(entry.ids)
    num_named = len(named.difference(elsewhere.first_ids.get(MISSING_FILE, ())))
    return named, entry.count - elsewhere.counts.get(MISSING_FILE, 0) - num_named


def gone_images(samples: Iterable[ListedSample], root: Path) -> dict[int, str]:
    """Those of `samples` whose image is not below `root`: its place, by id."""
    gone = {}
    for sample in samples:
        if not sample.fault:
            image = sample.captioned_image(root)
            end = sum(image.span) if image.span else 0
            if not image.path.is_file() or image.path.stat().st_size < end:
                gone[sample.id] = printable(str(image.path))
    return gone


def refuse_bad_share(found: SetVerification, listing: Listing, recipe: Recipe) -> None:
    """Raises UserError where the set has more bad samples or captions than `recipe` allows."""
    ShardJob(recipe, listing, ArrayTask()).check_listing()
    quarantined = tally_of(found.index.quarantined) if found.index else found.quarantined
    check_share(quarantined, listing.num_samples, recipe.data.max_bad_share, "samples")
