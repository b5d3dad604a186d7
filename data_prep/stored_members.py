"""The members that a shard's index says lie in its tar, and whether their content is what it must be."""

import functools
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.set_description import SetIndex, ShardFacts
from ifvit.data.captions import MAX_CHARACTERS, MAX_PROMPTS, caption_fault
from ifvit.data.shard_format import (
    BLOCK,
    CRC32,
    FLOAT,
    IDS,
    RECORD,
    member_name,
    member_span,
    member_suffixes,
    npy_header,
    npy_size,
    prompts_json,
)

MAX_PROMPTS_SIZE = MAX_PROMPTS * (6 * MAX_CHARACTERS + 4)  # bytes of JSON, each character escaped
header_of = functools.cache(npy_header)
EXPONENT = 0x7C00  # of a float16; all its bits set: infinite or no number


@dataclass(frozen=True)
class StoredMember:
    """A member as the index has it. Captions have no dtype."""

    name: str
    offset: int  # of its payload
    size: int
    crc32: int
    dtype: np.dtype | None = None
    shape: tuple[int, ...] = ()

    def fault(self, payload: bytes) -> str | None:
        """What is wrong with the bytes of its payload; None where nothing is."""
        if self.dtype is not None and not payload.startswith(header_of(self.dtype, self.shape)):
            return f"is no .npy array of {self.dtype.name} {self.shape}: its header differs"
        if zlib.crc32(payload) != self.crc32:
            return "its crc32 differs"
        if self.dtype == FLOAT and not all_finite(self.array(payload)):
            return "has values that are not finite"
        return None

    def array(self, payload: bytes) -> NDArray[Any]:
        assert self.dtype is not None
        return np.frombuffer(payload, self.dtype, offset=len(header_of(self.dtype, self.shape))).reshape(self.shape)


@dataclass(frozen=True)
class StoredRecord:
    """A sample as the index has it."""

    id: int
    num_prompts: int
    moments: StoredMember
    input_ids: StoredMember
    prompt_embeds: list[StoredMember]
    prompts: StoredMember

    @property
    def members(self) -> list[StoredMember]:
        """In the order of the tar."""
        return [self.moments, self.input_ids, *self.prompt_embeds, self.prompts]

    def prompts_in(self, payload: bytes) -> list[str] | None:
        """The captions, None where they are no captions."""
        try:
            prompts = json.loads(payload)
        except (ValueError, RecursionError):
            return None
        if not isinstance(prompts, list) or any(caption_fault(prompt) for prompt in prompts):
            return None
        return prompts if len(prompts) == self.num_prompts and prompts_json(prompts) == payload else None


class StoredIndex:
    """A shard's index file, `content`, of a set that `described` tells of."""

    def __init__(self, content: bytes, facts: ShardFacts, described: SetIndex) -> None:
        num_crcs = facts.prompts if described.has_embeddings else 0
        self.records: NDArray[Any] = np.frombuffer(content, RECORD, facts.samples)
        self.crc32 = np.frombuffer(content, CRC32, num_crcs, offset=RECORD.itemsize * facts.samples)
        self.facts, self.described = facts, described

    def fault(self) -> str | None:
        """What in it contradicts itself; None where nothing does."""
        counts = self.records["num_prompts"].astype(np.int64)
        if counts.size and not 1 <= counts.min() <= counts.max() <= MAX_PROMPTS:
            return f"gives samples from {counts.min()} to {counts.max()} captions, must be from 1 to {MAX_PROMPTS}"
        if counts.sum() != self.facts.prompts:
            return f"has {counts.sum():,} captions instead of {self.facts.prompts:,}"
        if self.described.has_embeddings and (self.records["first_prompt_embeds"] != counts.cumsum() - counts).any():
            return "numbers the prompt_embeds otherwise than the tar"
        if (self.records["prompts_size"] > MAX_PROMPTS_SIZE).any():
            return f"says that a sample has {self.records['prompts_size'].max():,} bytes of captions"
        if (ids := self.records["id"]).size and (ids.min() < 0 or (np.diff(ids) <= 0).any()):
            return "does not have the ids of its samples ascending: one is there twice, or out of place"
        return None

    def __iter__(self) -> Iterator[StoredRecord]:
        shapes, has_embeddings = self.described.shapes, self.described.has_embeddings
        for record in self.records:
            id_, num_prompts, offset = (int(record[name]) for name in ("id", "num_prompts", "offset"))
            first = int(record["first_prompt_embeds"])
            crcs = self.crc32[first : first + num_prompts].tolist() if has_embeddings else []
            contents: list[tuple[Any, ...]] = [  # size, crc32, dtype and shape
                array_content(record["moments_crc32"], FLOAT, shapes.moments),
                array_content(record["input_ids_crc32"], IDS, shapes.input_ids(num_prompts)),
                *(array_content(crc32, FLOAT, shapes.prompt_embeds) for crc32 in crcs),
                (int(record["prompts_size"]), int(record["prompts_crc32"])),
            ]
            members = []
            for suffix, content in zip(member_suffixes(num_prompts, has_embeddings), contents, strict=True):
                members.append(StoredMember(member_name(id_, suffix), offset + BLOCK, *content))
                offset += member_span(content[0])
            yield StoredRecord(id_, num_prompts, members[0], members[1], members[2:-1], members[-1])


def array_content(crc32: Any, dtype: np.dtype, shape: tuple[int, ...]) -> tuple[int, int, np.dtype, tuple[int, ...]]:
    return npy_size(dtype, shape), int(crc32), dtype, shape


def all_finite(values: NDArray[np.float16]) -> bool:
    """Faster than numpy's for half precision."""
    return bool(((values.view(np.uint16) & EXPONENT) != EXPONENT).all())
