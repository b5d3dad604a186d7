"""The first stage: which samples go into which shard, with their captions, written once beside the shards.

{shards_root}/{split}/listing/
    shard-000000.jsonl   one line for each sample of that shard, see `ListedSample`
    listing.json         written last: where the listing comes from, its counts, and the sha256 of each file

Shards are made from these files alone, so that no set of shards mixes two states of the captions. A source that has
changed is listed anew, but only if each finished shard has the same samples as before.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.bad_samples import Tally
from data_prep.listed_sample import ListedSample
from ifvit.config.errors import UserError
from ifvit.data.sealed_json import unsealed

LISTING_FOLDER = "listing"
LISTING_FILE = "listing.json"


@dataclass(frozen=True)
class Listing:
    """The samples of every shard, in `folder`."""

    folder: Path
    content: dict[str, Any]

    @property
    def num_shards(self) -> int:
        return len(self.content["shards"])

    @property
    def num_samples(self) -> int:
        return self.content["samples"]

    @property
    def num_captions(self) -> int:
        """The usable ones of samples without a fault, and those that were dropped."""
        return self.content["prompts"] + self.dropped_captions.total

    @property
    def faults(self) -> Tally:
        return Tally.from_json(self.content["faults"])

    @property
    def dropped_captions(self) -> Tally:
        return Tally.from_json(self.content["dropped_captions"])

    def shard_sha256(self, number: int) -> str:
        return self.content["shards"][number]["sha256"]

    def shard_samples(self, number: int) -> int:
        return self.content["shards"][number]["samples"]

    def shard(self, number: int) -> list[ListedSample]:
        """The samples of shard `number`, also the faulty ones. Raises UserError where their file has changed."""
        path = self.folder / rows_name(number)
        try:
            rows = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); {self.list_again}") from error
        if hashlib.sha256(rows).hexdigest() != self.shard_sha256(number):
            raise UserError(f"{path}: is damaged, or the source was listed anew meanwhile; {self.list_again}")
        return [ListedSample.from_row(row) for row in rows.splitlines()]

    @property
    def list_again(self) -> str:
        return f"delete {self.folder / LISTING_FILE} and run the same command again"


def rows_name(number: int) -> str:
    return f"shard-{number:06d}.jsonl"


def found_listing(folder: Path) -> Listing | None:
    try:
        content = unsealed((folder / LISTING_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / LISTING_FILE}: cannot be read ({error}); delete it") from error
    return Listing(folder, content)
