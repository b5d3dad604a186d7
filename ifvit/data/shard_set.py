"""A folder of finished shards: what it holds."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ifvit.config.errors import UserError
from ifvit.data.sample_index import SampleIndex
from ifvit.data.sealed_json import unsealed
from ifvit.data.shard_format import (
    FLOAT,
    FORMAT_VERSION,
    INDEX_FILE,
    MAKE_AGAIN,
    NULL_FILE,
    SAMPLES_FILE,
    SampleShapes,
    npy_header,
)

if TYPE_CHECKING:
    from ifvit.data.cache_folder import CacheFolder


class ShardSet:
    """The shards of one split. `open` checks that the files are there and belong together; reading checks members."""

    def __init__(
        self,
        folder: Path,
        index: dict[str, Any],
        samples: SampleIndex,
        null_prompt_embeds: Tensor,
        cache: "CacheFolder | None" = None,
    ) -> None:
        self.folder = folder
        self.cache = cache
        self.index = index
        self.samples = samples
        self.null_prompt_embeds = null_prompt_embeds  # (T, X) float32: the encoding of ""
        self.num_samples = samples.num_samples
        self.shapes = SampleShapes(**index["shapes"])
        self.split: str = index["split"]
        self.text_storage: str = index["text_storage"]
        self.scaling_factor: float = index["scaling_factor"]  # latents = sampled moments * scaling_factor
        self.measured_scaling_factor: float = index["measured_scaling_factor"]
        self.autoencoder_identity: dict[str, Any] = index["autoencoder"]
        self.text_encoder_identity: dict[str, Any] = index["text_encoder"]

    @property
    def digest(self) -> str:
        """sha256 of what a run reads: every shard's content and the null condition, wherever the folder lies."""
        parts = [shard["sha256"] for shard in self.index["shards"]] + [self.index["null_prompt_embeds_sha256"]]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    @property
    def has_embeddings(self) -> bool:
        return self.text_storage == "embeddings"

    @property
    def place(self) -> str:
        """Where the shards come from, as it may be shown."""
        return str(self.folder) if self.cache is None else self.cache.remote.name()

    @property
    def mending(self) -> str:
        """What to do about a damaged shard."""
        return f"delete the shard and {MAKE_AGAIN}" if self.cache is None else "delete it: the next start fetches it"

    @property
    def shard_samples(self) -> NDArray[np.int64]:
        """(K,): the number of samples in each shard."""
        return np.diff(self.samples.first_samples)

    @classmethod
    def open(cls, folder: str | Path, cache: "CacheFolder | None" = None, field: str = "data") -> "ShardSet":
        """The finished shards in `folder`. Raises UserError naming the file that is missing, damaged or too much.

        `cache`: the folder is the local picture of one elsewhere, where tars come when they are needed. `field`: the
        part of a recipe that names the folder.
        """
        folder = Path(folder)
        index = read_index(folder / INDEX_FILE, field)
        try:
            if cache is None:
                check_listing(folder, index["shards"])
            samples = SampleIndex(folder / SAMPLES_FILE, index["shards"], index["text_storage"] == "embeddings")
            if not samples.num_samples:
                raise UserError(f"{folder}: has no samples; {MAKE_AGAIN}")
            null_prompt_embeds = read_null_prompt_embeds(folder / NULL_FILE, index)
            return cls(folder, index, samples, null_prompt_embeds, cache)
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder / INDEX_FILE}: is damaged ({error}); delete it and {MAKE_AGAIN}") from error


def read_index(path: Path, field: str) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        index = json.loads(content)
    except FileNotFoundError:
        raise UserError(
            f"{field}.shards_root: {path.parent} holds no finished shards ({path.name} is missing); "
            f"make them with `python -m data_prep shards RECIPE`, or name another {field}.split"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {MAKE_AGAIN}") from error
    version = index.get("format_version") if isinstance(index, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path}: has shard format {version}, this program reads {FORMAT_VERSION}; make the shards anew"
        )
    try:
        return unsealed(content)
    except ValueError as error:
        raise UserError(f"{path}: is damaged or of an earlier version ({error}); {MAKE_AGAIN}") from error


def check_listing(folder: Path, shards: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError where a shard is missing, too much, or of another size."""
    listed = {shard["tar"]: shard for shard in shards}
    found = {entry.name: entry.stat().st_size for entry in os.scandir(folder) if entry.name.endswith(".tar")}
    if missing := sorted(listed.keys() - found.keys()):
        raise UserError(f"{folder / missing[0]}: shard is missing ({len(missing)} in all); {MAKE_AGAIN}")
    if extra := sorted(found.keys() - listed.keys()):
        raise UserError(f"{folder / extra[0]}: is not one of the shards that {INDEX_FILE} lists; move it away")
    if cut := sorted(name for name, size in found.items() if size != listed[name]["size"]):
        name, shard = cut[0], listed[cut[0]]
        raise UserError(
            f"{folder / name}: has {found[name]} bytes instead of {shard['size']}, so not all of its "
            f"{shard['samples']} samples can be there; delete it and {MAKE_AGAIN}"
        )


def read_null_prompt_embeds(path: Path, index: dict[str, Any]) -> Tensor:
    shape = SampleShapes(**index["shapes"]).prompt_embeds
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {MAKE_AGAIN}") from error
    if hashlib.sha256(content).hexdigest() != index["null_prompt_embeds_sha256"]:
        raise UserError(f"{path}: is damaged or of other shards (its sha256 differs); delete it and {MAKE_AGAIN}")
    values = np.frombuffer(content.removeprefix(npy_header(FLOAT, shape)), FLOAT).reshape(shape)
    return torch.from_numpy(values.astype(np.float32))
