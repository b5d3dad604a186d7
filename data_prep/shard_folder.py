"""The folder that shards go into: what is finished already. Nothing heavy is imported here."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ifvit.config.errors import UserError
from ifvit.data.sealed_json import unsealed
from ifvit.data.shard_format import ShardFiles, index_size

CLAIMS_FILE = ".claims"


def refuse_other_shards(folder: Path, num_shards: int) -> None:
    """Raises UserError where a shard lies in `folder` that is none of those to be made."""
    expected = {ShardFiles(folder, number).tar.name for number in range(num_shards)}
    if extra := sorted(path for path in folder.glob("*.tar") if path.name not in expected):
        raise UserError(
            f"{extra[0]}: is none of the {num_shards} shards needed here; move it away or use another --out"
        )


def finished_mark(files: ShardFiles, listing_sha256: str | None, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The done-mark of a shard, None where it must be made. Raises UserError where another shard lies there.

    `listing_sha256` None stands for any listing. Of tar and index only the sizes are compared; `verify` reads them.
    """
    try:
        mark = unsealed(files.mark.read_bytes())
        found, digest = mark["settings"], mark["listing_sha256"]
        has_embeddings = found["data.text_storage"] == "embeddings"
        expected = (mark["size"], index_size(mark["samples"], mark["prompts"], has_embeddings))
        is_whole = expected == (files.tar.stat().st_size, files.index.stat().st_size)
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
                "set it back to that to go on, or use another --out"
            )
    if listing_sha256 not in (None, digest):
        raise UserError(
            f"{files.tar}: was made from other images or captions than are listed now; "
            f"delete {files.mark.name} to have it made again, or use another --out"
        )
    return mark


def num_missing(folder: Path, num_shards: int) -> int:
    """How many of the shards have no done-mark."""
    there = {path.name for path in folder.glob("shard-*.json")}
    return sum(ShardFiles(folder, number).mark.name not in there for number in range(num_shards))


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left. Only for the holder of the lock, once every shard is finished."""
    for pattern in (".*.tmp*", "listing/.*.tmp*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def shown(value: Any) -> str:
    is_digest = isinstance(value, str) and len(value) == 64
    return f"the one with sha256 {value[:12]}" if is_digest else str(value)


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Makes an error of the file system a UserError that names the file, or `folder` where the system names none."""
    try:
        yield
    except BrokenPipeError:  # nobody reads what is printed
        raise
    except OSError as error:
        if error.errno is None:
            raise
        fix = "; the same command goes on from there"
        if error.errno in (errno.EACCES, errno.EPERM):
            fix = "; give this user the right to it (a folder that several users share: chmod -R g+rwX, and umask 002)"
        raise UserError(f"{error.filename or folder}: {error.strerror}{fix}") from error
