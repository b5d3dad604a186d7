"""A folder of finished shards: what it holds."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifvit.config.errors import UserError
from ifvit.data.shard_format import FLOAT, FORMAT_VERSION, INDEX_FILE, NULL_FILE, SampleShapes, npy_header
from ifvit.data.shard_table import MAKE_AGAIN, SampleTable, joined, read_shard_table, verified_bytes


class ShardSet:
    """The shards of one split. `open` checks that the files are there and belong together; reading checks members."""

    def __init__(self, folder: Path, index: dict[str, Any], table: SampleTable, null_prompt_embeds: Tensor) -> None:
        self.folder = folder
        self.index = index
        self.table = table
        self.null_prompt_embeds = null_prompt_embeds  # (T, X) float32: the encoding of ""
        self.num_samples = len(table.ids)
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

    @classmethod
    def open(cls, folder: str | Path) -> "ShardSet":
        """The finished shards in `folder`. Raises UserError naming the file that is missing, damaged or too much."""
        folder = Path(folder)
        index = read_index(folder / INDEX_FILE)
        try:
            check_listing(folder, [shard["tar"] for shard in index["shards"]])
            tables = [read_shard_table(folder, number, shard) for number, shard in enumerate(index["shards"])]
            null_prompt_embeds = read_null_prompt_embeds(folder / NULL_FILE, index)
            return cls(folder, index, joined(tables), null_prompt_embeds)
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder / INDEX_FILE}: is damaged ({error}); delete it and {MAKE_AGAIN}") from error


def read_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"data.shards_root: {path.parent} holds no finished shards ({path.name} is missing); "
            "make them with `python -m data_prep shards RECIPE`"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {MAKE_AGAIN}") from error
    version = index.get("format_version") if isinstance(index, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path}: has shard format {version}, this program reads {FORMAT_VERSION}; make the shards anew"
        )
    return index


def check_listing(folder: Path, listed: list[str]) -> None:
    found = {path.name for path in folder.glob("*.tar")}
    if missing := sorted(set(listed) - found):
        raise UserError(f"{folder / missing[0]}: shard is missing ({len(missing)} in all); {MAKE_AGAIN}")
    if extra := sorted(found - set(listed)):
        raise UserError(f"{folder / extra[0]}: is not one of the shards that {INDEX_FILE} lists; move it away")


def read_null_prompt_embeds(path: Path, index: dict[str, Any]) -> Tensor:
    shape = SampleShapes(**index["shapes"]).prompt_embeds
    content = verified_bytes(path, index["null_prompt_embeds_sha256"])
    values = np.frombuffer(content.removeprefix(npy_header(FLOAT, shape)), FLOAT).reshape(shape)
    return torch.from_numpy(values.astype(np.float32))
