"""The manifest of a checkpoint: what a resumed run must know, which file holds what, and the files' digests."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ifvit.config.loading import leaves
from ifvit.config.schema import Recipe
from ifvit.data.sealed_json import sealed_json, unsealed
from ifvit.runtime.run_directory import is_changeable
from ifvit.training.state import BadStepsRecord

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Part:
    """A contiguous part of one flattened parameter, in the files of `rank`."""

    rank: int
    start: int
    numel: int


@dataclass(frozen=True)
class StoredParameter:
    """The whole parameter, from parts that follow each other without a gap."""

    shape: tuple[int, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Progress:
    """What a resumed run must know besides tensors. The learning rate is a function of `step`: no scheduler has state,
    and all that is random, the order of the samples too, is derived from the seed and these numbers."""

    step: int
    samples_seen: int
    skipped_batches: int
    bad_steps: BadStepsRecord
    optimizer_steps: int  # updates that were made; steps whose update was left out are not among them


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json."""

    progress: Progress
    world_size: int
    zero_stage: int
    model: dict[str, Any]  # the model section of the recipe
    recipe_sha256: str  # see recipe_sha256()
    kinds: tuple[str, ...]  # weights, exp_avg, exp_avg_sq, ema-...
    parameters: dict[str, StoredParameter]
    files: dict[str, dict[str, Any]]  # by file name: size in bytes, sha256

    @property
    def step(self) -> int:
        return self.progress.step

    def dump(self) -> bytes:
        """The file's content, sealed with a digest of its own."""
        return sealed_json({"format_version": FORMAT_VERSION, **asdict(self)})


class DamagedCheckpointError(Exception):
    """A checkpoint that must not be loaded; the message names the file and what is wrong."""


def parsed_manifest(content: bytes) -> Manifest:
    """What `Manifest.dump` made `content` of. Raises ValueError where it is anything else."""
    if (version := format_version(content)) != FORMAT_VERSION:
        raise ValueError(f"has format version {version}, this ifvit reads {FORMAT_VERSION}")
    try:
        values = unsealed(content)
        values.pop("format_version")
        parameters = {
            name: StoredParameter(tuple(stored["shape"]), tuple(Part(**part) for part in stored["parts"]))
            for name, stored in values.pop("parameters").items()
        }
        numbers, kinds = values.pop("progress"), tuple(values.pop("kinds"))
        progress = Progress(bad_steps=BadStepsRecord(**numbers.pop("bad_steps")), **numbers)
        return Manifest(progress=progress, kinds=kinds, parameters=parameters, **values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"cannot be read: {error}") from error


def format_version(content: bytes) -> object:
    """The version, also of a manifest that is not sealed as this version's are; ours where that cannot be read."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return FORMAT_VERSION
    return values.get("format_version", FORMAT_VERSION) if isinstance(values, dict) else FORMAT_VERSION


def stored_parameters(
    shapes: Mapping[str, Sequence[int]], parts_by_rank: Sequence[Sequence[tuple[str, int, int]]]
) -> dict[str, StoredParameter]:
    """Each parameter's parts in order, from what each rank wrote as (name, start, numel). All of it must be there."""
    parts: dict[str, list[Part]] = {name: [] for name in shapes}
    for rank, rank_parts in enumerate(parts_by_rank):
        for name, start, numel in rank_parts:
            parts[name].append(Part(rank, start, numel))
    parameters = {}
    for name, shape in shapes.items():
        ordered = sorted(parts[name], key=lambda part: part.start)
        end = 0
        for part in ordered:
            assert part.start == end, f"{name}: nobody, or two ranks, wrote elements {end} to {part.start}"
            end += part.numel
        assert end == math.prod(shape), f"{name}: nobody wrote what follows element {end}"
        parameters[name] = StoredParameter(tuple(shape), tuple(ordered))
    return parameters


def recipe_sha256(recipe: Recipe) -> str:
    """Digest of those fields of the recipe that must not change between two starts of a run."""
    fields = {key: value for key, value in leaves(recipe.model_dump(mode="json")) if not is_changeable(key)}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
