"""What the processes of one start have in common: the recipe, the listing, and the task's share of the shards."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.array_task import ArrayTask
from data_prep.bad_samples import MISSING_FILE, check_share
from data_prep.listing import Listing
from data_prep.shard_folder import finished_mark
from data_prep.sources import source_of
from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.data.shard_format import ShardFiles


@dataclass(frozen=True)
class ShardJob:
    """Which shards are to be made, and of what."""

    recipe: Recipe
    listing: Listing
    task: ArrayTask

    @property
    def folder(self) -> Path:
        return shards_folder(self.recipe)

    @property
    def units(self) -> range:
        """The numbers of the task's shards."""
        return self.task.units(self.listing.num_shards)

    def check_listing(self) -> None:
        """Raises UserError where the listing alone has more bad samples or captions than the recipe allows."""
        listing, share = self.listing, self.recipe.data.max_bad_share
        check_share(listing.faults, listing.num_samples, share, "samples")
        check_share(listing.dropped_captions, listing.num_captions, share, "captions")

    def units_there(self) -> list[int]:
        """The task's shards that look finished; with which settings they were made is not looked at."""
        return [unit for unit in self.units if self.finished(unit, {})]

    def finished(self, unit: int, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The done-mark of shard `unit`, None where it must be made: also where an image that it misses is there now.

        Raises UserError where another shard lies there.
        """
        mark = finished_mark(ShardFiles(self.folder, unit), self.listing.shard_sha256(unit), settings)
        return None if mark and self.is_mended(unit, mark) else mark

    def is_mended(self, unit: int, mark: Mapping[str, Any]) -> bool:
        missing = {entry["id"] for entry in mark["quarantined"] if entry["reason"] == MISSING_FILE}
        if not missing:
            return False
        root = source_of(self.recipe.data).root
        images = [sample.captioned_image(root) for sample in self.listing.shard(unit) if sample.id in missing]
        return any(is_there(image.path) for image in images)


def shards_folder(recipe: Recipe) -> Path:
    """Where the shards of `recipe` are made. Raises UserError where that is no place on this machine."""
    root = recipe.data.shards_root
    if root is None:
        raise UserError("data.shards_root: is missing: a data.mixture is made of sets with recipes of their own")
    if "://" in root:
        raise UserError(f"data.shards_root: is {root}; make shards in a local folder and copy it there")
    return Path(root) / recipe.data.split


def is_there(path: Path) -> bool:
    """Whether an image that could not be opened can be now."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True
