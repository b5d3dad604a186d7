"""The folder that shards go into: what is finished already. Nothing heavy is imported here."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifvit.config.errors import UserError
from ifvit.data.sealed_json import unsealed
from ifvit.data.shard_format import ShardFiles

CLAIMS_FILE = ".claims"


def refuse_other_shards(folder: Path, num_shards: int) -> None:
    """Raises UserError where a shard lies in `folder` that is none of those to be made."""
    expected = {ShardFiles(folder, number).tar.name for number in range(num_shards)}
    if extra := sorted(path for path in folder.glob("*.tar") if path.name not in expected):
        raise UserError(
            f"{extra[0]}: is none of the {num_shards} shards needed here; delete {folder} or use another --out"
        )


def finished_mark(files: ShardFiles, listing_sha256: str | None, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The done-mark of a shard, None where it must be made. Raises UserError where another shard lies there.

    `listing_sha256` None stands for any listing.
    """
    try:
        mark = unsealed(files.mark.read_bytes())
        found, digest = mark["settings"], mark["listing_sha256"]
        is_whole = files.tar.stat().st_size == mark["size"] and file_sha256(files.index) == mark["index_sha256"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{files.mark}: is damaged or of an earlier version; delete it (if it is of an earlier version all of "
            f"{files.folder / 'shard-*.json'}), and the shard will be made again"
        ) from None
    if not is_whole:
        return None
    for field, value in settings.items():
        if found.get(field) != value:
            raise UserError(
                f"{field}: is {shown(value)}, but {files.tar} was made with {shown(found.get(field))}; "
                f"delete {files.folder} or use another --out"
            )
    if listing_sha256 not in (None, digest):
        raise UserError(
            f"{files.tar}: was made from other images or captions than are listed now; "
            f"delete {files.folder} or use another --out"
        )
    return mark


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def num_missing(folder: Path, num_shards: int) -> int:
    """How many of the shards have no done-mark."""
    there = {path.name for path in folder.glob("shard-*.json")}
    return sum(ShardFiles(folder, number).mark.name not in there for number in range(num_shards))


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left. Only for the holder of the lock, once every shard is finished."""
    for pattern in (".*.partial", ".*.tmp*", "listing/.*.tmp*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def shown(value: Any) -> str:
    is_digest = isinstance(value, str) and len(value) == 64
    return f"the one with sha256 {value[:12]}" if is_digest else str(value)
