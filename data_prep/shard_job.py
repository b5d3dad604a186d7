"""What the processes of one start have in common: the recipe, the listing, and the task's share of the shards."""

from dataclasses import dataclass
from pathlib import Path

from data_prep.array_task import ArrayTask
from data_prep.bad_samples import check_share
from data_prep.listing import Listing
from data_prep.shard_folder import finished_mark
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
        return [
            unit
            for unit in self.units
            if finished_mark(ShardFiles(self.folder, unit), self.listing.shard_sha256(unit), {})
        ]


def shards_folder(recipe: Recipe) -> Path:
    """Where the shards of `recipe` are made. Raises UserError where that is no place on this machine."""
    root = recipe.data.shards_root
    if root is None:
        raise UserError("data.shards_root: is missing: a data.mixture is made of sets with recipes of their own")
    if "://" in root:
        raise UserError(f"data.shards_root: is {root}; make shards in a local folder and copy it there")
    return Path(root) / recipe.data.split
