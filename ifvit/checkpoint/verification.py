"""Is a checkpoint what was written? Every byte is read and compared with the manifest, by all ranks together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifvit.checkpoint.daemon_threads import in_daemon_threads
from ifvit.checkpoint.layout import MANIFEST
from ifvit.checkpoint.manifest import DamagedCheckpointError, Manifest, parsed_manifest
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.files import file_sha256

HASHING_THREADS = 2


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`. Raises DamagedCheckpointError."""
    try:
        return parsed_manifest((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise DamagedCheckpointError(f"{MANIFEST} is missing") from None
    except (ValueError, OSError) as error:
        raise DamagedCheckpointError(f"{MANIFEST} {error}") from error


def verify(folder: Path, ranks: Ranks = Ranks()) -> Manifest:  # noqa: B008 (frozen)
    """Compare this rank's share of the files in `folder` with the manifest; of one rank that is all of them.

    Raises DamagedCheckpointError.
    """
    manifest = read_manifest(folder)
    share = sorted(manifest.files.items())[ranks.rank :: ranks.world_size]
    problems = in_daemon_threads(lambda entry: problem_of(folder / entry[0], entry[1]), share, HASHING_THREADS)
    if found := next(filter(None, problems), None):
        raise DamagedCheckpointError(found)
    return manifest


def problem_of(path: Path, expected: Mapping[str, Any]) -> str | None:
    """What is wrong with the file `path`, or None."""
    try:
        if (size := path.stat().st_size) != expected["size"]:
            return f"{path.name} has {size} bytes instead of {expected['size']}"
        return None if file_sha256(path) == expected["sha256"] else f"{path.name} has another sha256 than the manifest"
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror or error}"
