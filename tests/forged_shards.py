"""Shards changed in a way that no digest tells: every file says what the changed one has."""

import hashlib
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.tar_members import TarMembers
from ifvit.data.sealed_json import sealed_json, unsealed
from ifvit.data.shard_format import CRC32, INDEX_FILE, RECORD, SAMPLES_FILE, ShardFiles

CRC_FIELDS = {"latents": "moments_crc32", "input_ids": "input_ids_crc32", "prompts": "prompts_crc32"}


def reseal(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change what a sealed JSON file says, and seal it again."""
    values = unsealed(path.read_bytes())
    edit(values)
    path.write_bytes(sealed_json(values))


def forge_members(folder: Path, number: int, edit: Callable[[str, bytearray], object]) -> None:
    """`edit(name, payload)` may change the payload of each member of shard `number`, but not its length."""
    files = ShardFiles(folder, number)
    tar, index = bytearray(files.tar.read_bytes()), bytearray(files.index.read_bytes())
    mark = unsealed(files.mark.read_bytes())
    records = np.frombuffer(index, RECORD, mark["samples"])
    crc32 = np.frombuffer(index, CRC32, offset=RECORD.itemsize * mark["samples"])
    num_embeds = 0
    for member in TarMembers(files.tar):
        payload = tar[member.offset : member.offset + member.size]
        edit(member.name, payload)
        assert len(payload) == member.size
        tar[member.offset : member.offset + member.size] = payload
        id_, kind = member.name.split(".")[:2]
        if kind == "prompt_embeds":
            crc32[num_embeds] = zlib.crc32(payload)
            num_embeds += 1
        else:
            records[CRC_FIELDS[kind]][records["id"] == int(id_)] = zlib.crc32(payload)
    files.tar.write_bytes(tar)
    forge_index(folder, number, bytes(index))


def forge_index(folder: Path, number: int, index: bytes) -> None:
    """Put `index` in place of the index of shard `number`, and have all other files say so."""
    files = ShardFiles(folder, number)
    files.index.write_bytes(index)
    digests = {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in (("sha256", files.tar), ("index_sha256", files.index))
    }
    reseal(files.mark, lambda values: values.update(digests))
    reseal(folder / INDEX_FILE, lambda values: values["shards"][number].update(digests))
    parts = [
        ShardFiles(folder, other).index for other in range(len(unsealed((folder / INDEX_FILE).read_bytes())["shards"]))
    ]
    (folder / SAMPLES_FILE).write_bytes(b"".join(part.read_bytes() for part in parts))


def copy_shard(folder: Path, source: int, target: int) -> None:
    for suffix in ("tar", "index", "json"):
        shutil.copy(folder / f"shard-{source:06d}.{suffix}", folder / f"shard-{target:06d}.{suffix}")
