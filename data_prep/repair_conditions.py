"""When a damaged shard must not be removed: what would be made in its place is not what it was."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from data_prep.faults import capped
from data_prep.listing import Listing
from data_prep.set_description import DoneMark
from data_prep.set_verification import SetVerification
from data_prep.shard_folder import shown
from data_prep.shard_units import shard_settings
from ifvit.config.errors import UserError, printable
from ifvit.config.schema import Recipe
from ifvit.data.coco import CaptionedImage
from ifvit.encoders.loading import load_encoders

MAX_NAMED = 10
MISSING_FILE = "missing file"  # the reason for which a sample without an image is quarantined


def refuse_foreign_files(found: SetVerification) -> None:
    """Raises UserError where the folder has shards that are none of the set's."""
    if foreign := [fault for fault in found.faults.kept if fault.is_foreign]:
        raise UserError(*(f"{found.folder}/{fault}" for fault in foreign[:MAX_NAMED]))


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
        theirs["data.encode_batch_size"] = found.mark.encode_batch_size
        ours["data.encode_batch_size"] = recipe.data.encode_batch_size
    if other := [field for field, value in theirs.items() if ours.get(field) != value]:
        raise UserError(
            *(
                f"{field}: is {shown(ours.get(field))}, but the shards in {found.folder} were made with "
                f"{shown(theirs[field])}; give the recipe that made them"
                for field in other
            )
        )


def refuse_missing_images(
    found: SetVerification, marks: Mapping[int, DoneMark | None], listing: Listing, root: Path
) -> None:
    """Raises UserError where images of the damaged shards are gone that were there when these were made."""
    missing: dict[int, list[str]] = {}
    for number, mark in marks.items():
        if number < listing.num_shards:
            known = known_as_missing(found, mark)
            gone = [printable(str(image.path)) for image in gone_images(listing, number, root) if image.id not in known]
            if gone:
                missing[number] = gone
    if missing:
        images = [image for gone in missing.values() for image in gone]
        shards = ", ".join(capped(map(str, missing), MAX_NAMED, len(missing)))
        raise UserError(f"{images[0]}: is gone, one of {len(images):,} images that shards {shards} are made of")


def gone_images(listing: Listing, number: int, root: Path) -> Iterator[CaptionedImage]:
    for sample in listing.shard(number):
        if not sample.fault:
            image = sample.captioned_image(root)
            end = sum(image.span) if image.span else 0
            if not image.path.is_file() or image.path.stat().st_size < end:
                yield image


def known_as_missing(found: SetVerification, mark: DoneMark | None) -> set[int]:
    """Ids of images that were gone already when the shard was made."""
    if mark:
        return {sample.id for sample in mark.quarantined if sample.reason == MISSING_FILE}
    quarantined = found.index.quarantined if found.index else {}
    return set(quarantined[MISSING_FILE].ids) if MISSING_FILE in quarantined else set()
