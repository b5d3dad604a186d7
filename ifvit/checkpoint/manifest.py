"""The manifest of a checkpoint: what a resumed run must know, which file holds what, and the files' digests."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ifvit.checkpoint.layout import MANIFEST
from ifvit.runtime.files import file_sha256
from ifvit.training.state import BadStepsRecord

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Part:
    """A contiguous part of one flattened parameter, in the file of `rank`."""

    rank: int
    start: int
    numel: int


@dataclass(frozen=True)
class StoredParameter:
    """The whole parameter, from parts that follow each other without a gap."""

    shape: tuple[int, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json."""

    step: int
    samples_seen: int
    world_size: int
    zero_stage: int
    model: dict[str, Any]  # the model section of the recipe
    kinds: tuple[str, ...]  # weights, exp_avg, exp_avg_sq, ema-...
    parameters: dict[str, StoredParameter]
    files: dict[str, dict[str, Any]]  # by file name: size in bytes, sha256
    skipped_batches: int = 0
    bad_steps: BadStepsRecord = field(default_factory=BadStepsRecord)

    def dump(self) -> bytes:
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}).encode()


class DamagedCheckpointError(Exception):
    """A checkpoint that must not be loaded; the message names the file and what is wrong."""


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`. Raises DamagedCheckpointError."""
    try:
        values = json.loads((folder / MANIFEST).read_bytes())
        if (version := values.pop("format_version")) != FORMAT_VERSION:
            raise DamagedCheckpointError(f"{MANIFEST} has format version {version}, this ifvit reads {FORMAT_VERSION}")
        parameters = {
            name: StoredParameter(tuple(stored["shape"]), tuple(Part(**part) for part in stored["parts"]))
            for name, stored in values.pop("parameters").items()
        }
        bad_steps = BadStepsRecord(**values.pop("bad_steps", {}))  # a checkpoint of before has none
        return Manifest(parameters=parameters, kinds=tuple(values.pop("kinds")), bad_steps=bad_steps, **values)
    except FileNotFoundError:
        raise DamagedCheckpointError(f"{MANIFEST} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(f"{MANIFEST} cannot be read: {error}") from error


def verify(folder: Path) -> Manifest:
    """Read every file of the checkpoint in `folder` and compare it with the manifest. Raises DamagedCheckpointError."""
    manifest = read_manifest(folder)
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise DamagedCheckpointError(f"{name} is missing")
        if (size := path.stat().st_size) != expected["size"]:
            raise DamagedCheckpointError(f"{name} has {size} bytes instead of {expected['size']}")
        if file_sha256(path) != expected["sha256"]:
            raise DamagedCheckpointError(f"{name} has another sha256 than the manifest")
    return manifest
