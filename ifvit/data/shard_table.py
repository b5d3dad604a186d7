"""Where each sample of a shard lies: the index beside the tar, verified."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays

from ifvit.config.errors import UserError
from ifvit.data.shard_format import ShardFiles

MAKE_AGAIN = "run `python -m data_prep shards` again"


@dataclass(frozen=True)
class SampleTable:
    """One entry per sample, in the order of the shards."""

    ids: NDArray[np.int64]
    shards: NDArray[np.int64]  # number of the shard
    offsets: NDArray[np.int64]  # bytes from the start of its tar to the sample's first member's header
    num_prompts: NDArray[np.int64]
    prompts_sizes: NDArray[np.int64]  # bytes of prompts.json
    crc_starts: NDArray[np.int64]  # index of the sample's first member in member_crc32
    member_crc32: NDArray[np.uint32]  # of every member's payload, in the order of the tar


def read_shard_table(folder: Path, number: int, shard: dict[str, Any]) -> SampleTable:
    files = ShardFiles(folder, number)
    if (size := files.tar.stat().st_size) != shard["size"]:
        raise UserError(
            f"{files.tar}: has {size} bytes instead of {shard['size']}, so not all of its {shard['samples']} samples "
            f"can be there; delete it and {MAKE_AGAIN}"
        )
    arrays = load_arrays(verified_bytes(files.index, shard["index_sha256"]))
    members_per_sample = np.diff(arrays["crc_starts"], append=len(arrays["member_crc32"]))
    if len(arrays["ids"]) != shard["samples"] or members_per_sample.min(initial=3) < 3:
        raise UserError(f"{files.index}: does not fit its shard; delete {files.tar.name} and {MAKE_AGAIN}")
    return SampleTable(shards=np.full(len(arrays["ids"]), number, np.int64), **arrays)


def verified_bytes(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {MAKE_AGAIN}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path}: is damaged or of other shards (its sha256 differs); delete it and {MAKE_AGAIN}")
    return content


def joined(tables: list[SampleTable]) -> SampleTable:
    crc_counts = [len(table.member_crc32) for table in tables]
    crc_bases = np.cumsum([0, *crc_counts[:-1]])
    return SampleTable(
        ids=np.concatenate([table.ids for table in tables]),
        shards=np.concatenate([table.shards for table in tables]),
        offsets=np.concatenate([table.offsets for table in tables]),
        num_prompts=np.concatenate([table.num_prompts for table in tables]),
        prompts_sizes=np.concatenate([table.prompts_sizes for table in tables]),
        crc_starts=np.concatenate([table.crc_starts + base for table, base in zip(tables, crc_bases, strict=True)]),
        member_crc32=np.concatenate([table.member_crc32 for table in tables]),
    )
