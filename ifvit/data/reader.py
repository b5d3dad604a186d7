"""Members of samples, read at known offsets and checked by crc32 at every read."""

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifvit.config.errors import UserError
from ifvit.data.sample_index import Integers
from ifvit.data.shard_format import (
    BLOCK,
    FLOAT,
    IDS,
    MAKE_AGAIN,
    SampleShapes,
    ShardFiles,
    member_name,
    member_span,
    member_suffixes,
    npy_header,
    npy_size,
)
from ifvit.data.shard_set import ShardSet

MAX_OPEN_SHARDS = 256
NOTHING = memoryview(bytearray())
OTHER_KIND = "it holds another kind of array than its shard's index says"
OTHER_CRC32 = "its crc32 differs"


@dataclass(frozen=True)
class SampleLayout:
    """Where the members of a sample lie, counted in bytes from the first byte of its first payload, the moments."""

    ids_header: bytes
    ids_start: int
    ids_end: int
    embeds_start: int
    embeds_span: int  # from one caption's embeddings to the next one's

    @classmethod
    def of(cls, shapes: SampleShapes, num_prompts: int) -> "SampleLayout":
        ids_shape = shapes.input_ids(num_prompts)
        ids_start, ids_size = member_span(npy_size(FLOAT, shapes.moments)), npy_size(IDS, ids_shape)
        return cls(
            ids_header=npy_header(IDS, ids_shape),
            ids_start=ids_start,
            ids_end=ids_start + ids_size,
            embeds_start=ids_start + member_span(ids_size),
            embeds_span=member_span(npy_size(FLOAT, shapes.prompt_embeds)),
        )


class DamageError(Exception):
    """What is wrong with a member: (number of the member in its sample, what)."""


class SampleReader:
    """Reads rows of a batch into arrays that are there already, and of each sample only what training uses.

    Plain reads, no memory map: a failing disk is then an error, not the death of the process. For one thread.
    `checks_crc32` False is for benchmarks.
    """

    def __init__(self, shard_set: ShardSet, checks_crc32: bool = True, max_open_shards: int = MAX_OPEN_SHARDS) -> None:
        self.shard_set = shard_set
        self.shapes = shard_set.shapes
        self.checks_crc32 = checks_crc32
        self.max_open_shards = max_open_shards
        self.moments_header = npy_header(FLOAT, self.shapes.moments)
        self.embeds_header = npy_header(FLOAT, self.shapes.prompt_embeds)
        self.found_header = bytearray(len(self.moments_header))
        self.layouts: dict[int, SampleLayout] = {}  # by number of captions
        self.tail = memoryview(bytearray())  # what lies behind the moments up to the end of the token ids
        self.open_shards: dict[int, int] = {}  # shard number to file descriptor, the one opened longest ago first

    def read(
        self, samples: Integers, captions: Integers, moments: NDArray[np.float16], text: NDArray, rows: Integers
    ) -> None:
        """Row rows[k] of `moments` (R, 2C, H, W) and `text` becomes that of samples[k] and its caption captions[k].

        `text` is (R, T, X) float16 where embeddings are stored, else (R, T) uint16; both arrays are contiguous. Raises
        UserError naming the shard and the member that is damaged.
        """
        index = self.shard_set.samples
        records = index.records(samples)
        text_crc32 = records["input_ids_crc32"]
        read_row: Callable[..., None] = self.read_ids_row
        if self.shard_set.has_embeddings:
            text_crc32 = index.prompt_embeds_crc32(samples, records["first_prompt_embeds"] + captions)
            read_row = self.read_embeds_row
        moments_rows, text_rows = byte_rows(moments, rows), byte_rows(text, rows)
        members = zip(
            index.shards_of(samples).tolist(),
            *(records[name].tolist() for name in ("offset", "num_prompts", "moments_crc32")),
            *(text_crc32.tolist(), captions.tolist(), moments_rows, text_rows),
            strict=True,
        )
        for number, values in enumerate(members):
            try:
                read_row(*values)
            except DamageError as damage:
                raise self.damaged(int(samples[number]), *damage.args) from damage

    def read_embeds_row(
        self,
        shard: int,
        offset: int,
        num_prompts: int,
        moments_crc32: int,
        text_crc32: int,
        caption: int,
        moments: memoryview,
        text: memoryview,
    ) -> None:
        layout, start = self.layout(num_prompts), offset + BLOCK
        file = self.descriptor(shard)
        self.read_array(file, 0, start, self.moments_header, moments_crc32, moments)
        start += layout.embeds_start + caption * layout.embeds_span
        self.read_array(file, 2 + caption, start, self.embeds_header, text_crc32, text)

    def read_ids_row(
        self,
        shard: int,
        offset: int,
        num_prompts: int,
        moments_crc32: int,
        text_crc32: int,
        caption: int,
        moments: memoryview,
        text: memoryview,
    ) -> None:
        """One read for both: the token ids of all captions lie behind the moments and are small."""
        layout = self.layout(num_prompts)
        moments_size = len(self.moments_header) + len(moments)
        tail = self.tail[: layout.ids_end - moments_size]
        self.read_array(self.descriptor(shard), 0, offset + BLOCK, self.moments_header, moments_crc32, moments, tail)
        ids = tail[layout.ids_start - moments_size :]
        header = layout.ids_header
        if ids[: len(header)] != header:
            raise DamageError(1, OTHER_KIND)
        if self.checks_crc32 and zlib.crc32(ids) != text_crc32:
            raise DamageError(1, OTHER_CRC32)
        first = len(header) + caption * len(text)
        text[:] = ids[first : first + len(text)]

    def read_array(
        self,
        file: int,
        member: int,
        start: int,
        header: bytes,
        crc32: int,
        out: memoryview,
        tail: memoryview = NOTHING,
    ) -> None:
        """The array whose file starts at byte `start` into `out`, and what follows it into `tail`."""
        found = self.found_header
        try:
            size = os.preadv(file, [found, out, tail], start)
        except OSError as error:
            raise DamageError(member, f"reading it fails ({error.strerror})") from error
        if size != len(found) + len(out) + len(tail):
            raise DamageError(member, "its shard is cut off before it ends")
        if found != header:
            raise DamageError(member, OTHER_KIND)
        if self.checks_crc32 and zlib.crc32(out, zlib.crc32(found)) != crc32:
            raise DamageError(member, OTHER_CRC32)

    def prompts(self, sample: int) -> list[str]:
        """All captions of one sample, as text."""
        index = self.shard_set.samples
        record = index.records(np.array([sample]))[0]
        num_prompts, size = int(record["num_prompts"]), int(record["prompts_size"])
        layout = self.layout(num_prompts)
        num_embeds = num_prompts if self.shard_set.has_embeddings else 0
        start = int(record["offset"]) + BLOCK + layout.embeds_start + num_embeds * layout.embeds_span
        content = os.pread(self.descriptor(int(index.shards_of(np.array([sample]))[0])), size, start)
        if zlib.crc32(content) != record["prompts_crc32"]:
            raise self.damaged(sample, 2 + num_embeds, OTHER_CRC32)
        prompts: list[str] = json.loads(content)
        return prompts

    def layout(self, num_prompts: int) -> SampleLayout:
        if num_prompts not in self.layouts:
            layout = SampleLayout.of(self.shapes, num_prompts)
            self.layouts[num_prompts] = layout
            if layout.ids_end > len(self.tail):
                self.tail = memoryview(bytearray(layout.ids_end))
        return self.layouts[num_prompts]

    def descriptor(self, shard: int) -> int:
        if shard not in self.open_shards:
            if len(self.open_shards) >= self.max_open_shards:
                os.close(self.open_shards.pop(next(iter(self.open_shards))))
            self.open_shards[shard] = os.open(ShardFiles(self.shard_set.folder, shard).tar, os.O_RDONLY)
        return self.open_shards[shard]

    def damaged(self, sample: int, member: int, how: str) -> UserError:
        index = self.shard_set.samples
        record = index.records(np.array([sample]))[0]
        suffix = member_suffixes(int(record["num_prompts"]), self.shard_set.has_embeddings)[member]
        tar = ShardFiles(self.shard_set.folder, int(index.shards_of(np.array([sample]))[0])).tar
        return UserError(
            f"{tar}: is damaged: {member_name(int(record['id']), suffix)}: {how}; delete the shard and {MAKE_AGAIN}"
        )

    def close(self) -> None:
        while self.open_shards:
            os.close(self.open_shards.popitem()[1])


def byte_rows(array: NDArray, rows: Integers) -> list[memoryview]:
    """The memory of `rows` of a contiguous array."""
    assert array.flags.c_contiguous
    size = array.nbytes // len(array)
    content = array.data.cast("B")
    return [content[start : start + size] for start in (rows * size).tolist()]
