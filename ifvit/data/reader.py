"""Samples as rows of a batch: which bytes of their members are read, and who is named when they are damaged."""

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ifvit.config.errors import UserError
from ifvit.data.array_rows import MAX_OPEN_SHARDS, OTHER_CRC32, ArrayRows, DamageError, UnreadableError
from ifvit.data.row_memory import ScratchRows, byte_rows
from ifvit.data.sample_index import Bytes, Integers
from ifvit.data.shard_format import (
    BLOCK,
    FLOAT,
    IDS,
    SampleShapes,
    ShardFiles,
    member_name,
    member_span,
    member_suffixes,
    npy_header,
    npy_size,
)
from ifvit.data.shard_set import ShardSet

Records = NDArray[np.void]
MOMENTS, INPUT_IDS, FIRST_EMBEDS = 0, 1, 2  # numbers of members in `member_suffixes`


@dataclass(frozen=True)
class SampleLayout:
    """Where the members of a sample lie, counted in bytes from the first byte of its first payload, the moments."""

    ids_header: bytes
    ids_start: int
    ids_end: int
    embeds_start: int  # of the first caption's; each next one's lie member_span later

    @classmethod
    def of(cls, shapes: SampleShapes, num_prompts: int) -> "SampleLayout":
        ids_shape = shapes.input_ids(num_prompts)
        ids_start, ids_size = member_span(npy_size(FLOAT, shapes.moments)), npy_size(IDS, ids_shape)
        return cls(
            ids_header=npy_header(IDS, ids_shape),
            ids_start=ids_start,
            ids_end=ids_start + ids_size,
            embeds_start=ids_start + member_span(ids_size),
        )


class SampleReader:
    """Reads rows of a batch into arrays that are there already, and of each sample only what training uses.

    For one thread. `checks_crc32` False is for benchmarks.
    """

    def __init__(self, shard_set: ShardSet, checks_crc32: bool = True, max_open_shards: int = MAX_OPEN_SHARDS) -> None:
        self.shard_set = shard_set
        self.shapes = shard_set.shapes
        self.arrays = ArrayRows(shard_set.folder, checks_crc32, max_open_shards)
        self.moments_header = npy_header(FLOAT, self.shapes.moments)
        self.moments_size = npy_size(FLOAT, self.shapes.moments)
        self.embeds_header = npy_header(FLOAT, self.shapes.prompt_embeds)
        self.embeds_span = member_span(npy_size(FLOAT, self.shapes.prompt_embeds))
        self.tails = ScratchRows()
        self.layouts: dict[int, SampleLayout] = {}  # by number of captions

    def read(
        self, samples: Integers, captions: Integers, moments: NDArray[np.float16], text: NDArray, rows: Integers
    ) -> None:
        """Row rows[k] of `moments` (R, 2C, H, W) and `text` becomes that of samples[k] and its caption captions[k].

        `text` is (R, T, X) float16 where embeddings are stored, else (R, T) uint16; both arrays are contiguous. Raises
        UserError naming the shard and the member that is damaged.
        """
        index = self.shard_set.samples
        shards, records = index.shards_of(samples), index.records(samples)
        starts = records["offset"] + BLOCK
        crc32, moments_rows = records["moments_crc32"], byte_rows(moments, rows)
        if self.shard_set.has_embeddings:
            with self.naming(samples, MOMENTS):
                self.arrays.read(shards, starts, self.moments_header, crc32, moments_rows)
            first = [self.layout(count).embeds_start for count in records["num_prompts"].tolist()]
            starts += np.array(first, np.int64) + captions * self.embeds_span
            crc32 = index.prompt_embeds_crc32(samples, records["first_prompt_embeds"] + captions)
            with self.naming(samples, FIRST_EMBEDS + captions):
                self.arrays.read(shards, starts, self.embeds_header, crc32, byte_rows(text, rows))
        else:  # one read for both: the token ids of all captions lie behind the moments and are small
            tails, tail_rows = self.tail_rows(records)
            with self.naming(samples, MOMENTS):
                self.arrays.read(shards, starts, self.moments_header, crc32, moments_rows, tail_rows)
            for count in np.unique(records["num_prompts"]).tolist():
                chosen = np.flatnonzero(records["num_prompts"] == count)
                with self.naming(samples[chosen], INPUT_IDS):
                    ids = self.ids_in(tails[chosen], count, records["input_ids_crc32"][chosen])
                text[rows[chosen]] = ids[np.arange(len(chosen)), captions[chosen]]

    def tail_rows(self, records: Records) -> tuple[Bytes, list[memoryview]]:
        """Memory for what lies behind the moments up to the end of the token ids: (R, most bytes), and each row's."""
        sizes = [self.layout(count).ids_end - self.moments_size for count in records["num_prompts"].tolist()]
        tails, rows = self.tails.take(len(sizes), max(sizes, default=0))
        return tails, [row[:size] for row, size in zip(rows, sizes, strict=True)]

    def ids_in(self, tails: Bytes, num_prompts: int, crc32: NDArray[np.uint32]) -> NDArray[np.uint16]:
        """(R, num_prompts, T): the token ids of all captions in `tails`."""
        layout = self.layout(num_prompts)
        start = layout.ids_start - self.moments_size
        headers = tails[:, start : start + len(layout.ids_header)]
        values = np.ascontiguousarray(tails[:, start + len(layout.ids_header) : layout.ids_end - self.moments_size])
        self.arrays.check(headers, layout.ids_header, crc32, byte_rows(values, np.arange(len(values))))
        return values.view(IDS).reshape(len(values), num_prompts, -1)

    def prompts(self, sample: int) -> list[str]:
        """All captions of one sample, as text."""
        record, shard = self.record(sample)
        num_prompts, size = int(record["num_prompts"]), int(record["prompts_size"])
        num_embeds = num_prompts if self.shard_set.has_embeddings else 0
        start = int(record["offset"]) + BLOCK + self.layout(num_prompts).embeds_start + num_embeds * self.embeds_span
        content = os.pread(self.arrays.descriptors([shard])[0], size, start)
        if zlib.crc32(content) != record["prompts_crc32"]:
            raise self.damaged(sample, FIRST_EMBEDS + num_embeds, OTHER_CRC32)
        prompts: list[str] = json.loads(content)
        return prompts

    def layout(self, num_prompts: int) -> SampleLayout:
        if num_prompts not in self.layouts:
            self.layouts[num_prompts] = SampleLayout.of(self.shapes, num_prompts)
        return self.layouts[num_prompts]

    def record(self, sample: int) -> tuple[np.void, int]:
        """Of one sample, and the number of its shard."""
        index, samples = self.shard_set.samples, np.array([sample])
        return index.records(samples)[0], int(index.shards_of(samples)[0])

    @contextmanager
    def naming(self, samples: Integers, members: Integers | int) -> Iterator[None]:
        """Says of which member a damage is that is found in the block; `members` are those that are read there."""
        try:
            yield
        except DamageError as damage:
            row, what = damage.args
            member = int(np.broadcast_to(members, len(samples))[row])
            raise self.damaged(int(samples[row]), member, what) from damage
        except UnreadableError as fault:
            row, what = fault.args
            _, shard = self.record(int(samples[row]))
            raise UserError(f"{ShardFiles(self.shard_set.folder, shard).tar}: {what}") from fault

    def damaged(self, sample: int, member: int, what: str) -> UserError:
        record, shard = self.record(sample)
        suffix = member_suffixes(int(record["num_prompts"]), self.shard_set.has_embeddings)[member]
        tar = ShardFiles(self.shard_set.folder, shard).tar
        fix = self.shard_set.mending
        return UserError(f"{tar}: is damaged: {member_name(int(record['id']), suffix)}: {what}; {fix}")

    def close(self) -> None:
        """Close the tars; the next read opens them again."""
        self.arrays.close()
