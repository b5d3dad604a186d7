"""Members of samples, read at known offsets and checked by crc32 at every read."""

import json
import os
import zlib

import numpy as np
from numpy.typing import NDArray

from ifvit.config.errors import UserError
from ifvit.data.shard_format import (
    BLOCK,
    FLOAT,
    IDS,
    ShardFiles,
    member_name,
    member_span,
    member_suffixes,
    npy_header,
    npy_size,
)
from ifvit.data.shard_set import ShardSet
from ifvit.data.shard_table import MAKE_AGAIN

MAX_OPEN_SHARDS = 256


class SampleReader:
    """Reads what is asked for and nothing more: of several stored captions only the chosen one's embeddings.

    Plain reads, no memory map: a failing disk is then an error, not the death of the process. For one thread.
    """

    def __init__(self, shard_set: ShardSet) -> None:
        self.shard_set = shard_set
        self.table = shard_set.table
        shapes = shard_set.shapes
        self.moments_header = npy_header(FLOAT, shapes.moments)
        self.embeds_header = npy_header(FLOAT, shapes.prompt_embeds)
        self.moments_span = member_span(npy_size(FLOAT, shapes.moments))
        self.embeds_span = member_span(npy_size(FLOAT, shapes.prompt_embeds)) if shard_set.has_embeddings else 0
        self.open_shards: dict[int, int] = {}  # shard number to file descriptor

    def read_moments(self, sample: int, out: NDArray) -> None:
        """Into `out` (2C, H, W) float16, contiguous."""
        self.read_array(sample, 0, 0, self.moments_header, out)

    def read_prompt_embeds(self, sample: int, caption: int, out: NDArray) -> None:
        """Into `out` (T, X) float16, contiguous: the embeddings of caption number `caption`."""
        start = self.moments_span + self.ids_span(sample) + caption * self.embeds_span
        self.read_array(sample, 2 + caption, start, self.embeds_header, out)

    def read_input_ids(self, sample: int) -> NDArray[np.uint16]:
        """(N, T) uint16: the token ids of all N captions."""
        shape = self.ids_shape(sample)
        ids = np.empty(shape, IDS)
        self.read_array(sample, 1, self.moments_span, npy_header(IDS, shape), ids)
        return ids

    def read_prompts(self, sample: int) -> list[str]:
        """All captions, as text."""
        num_prompts = int(self.table.num_prompts[sample])
        num_embeds = num_prompts if self.shard_set.has_embeddings else 0
        content = bytearray(int(self.table.prompts_sizes[sample]))
        start = self.moments_span + self.ids_span(sample) + num_embeds * self.embeds_span
        self.read_member(sample, 2 + num_embeds, start, content, memoryview(bytearray()))
        return json.loads(content)

    def ids_shape(self, sample: int) -> tuple[int, int]:
        return self.shard_set.shapes.input_ids(int(self.table.num_prompts[sample]))

    def ids_span(self, sample: int) -> int:
        return member_span(npy_size(IDS, self.ids_shape(sample)))

    def read_array(self, sample: int, member: int, start: int, header: bytes, out: NDArray) -> None:
        """Into `out`, when the member has exactly the header that such an array has."""
        found = bytearray(len(header))
        self.read_member(sample, member, start, found, out.data.cast("B"))
        if found != header:
            raise self.damaged(sample, member, "it holds another kind of array than its shard's index says")

    def read_member(self, sample: int, member: int, start: int, first: bytearray, rest: memoryview) -> None:
        """Fill `first`, then `rest`, with the payload of the member whose header is `start` bytes into the sample."""
        offset = int(self.table.offsets[sample]) + start + BLOCK
        try:
            size = os.preadv(self.descriptor(int(self.table.shards[sample])), [first, rest], offset)
        except OSError as error:
            raise self.damaged(sample, member, f"reading it fails ({error.strerror})") from error
        if size != len(first) + len(rest):
            raise self.damaged(sample, member, "its shard is cut off before it ends")
        if zlib.crc32(rest, zlib.crc32(first)) != self.table.member_crc32[self.table.crc_starts[sample] + member]:
            raise self.damaged(sample, member, f"its crc32 differs, at byte {offset}")

    def descriptor(self, shard: int) -> int:
        if shard not in self.open_shards:
            if len(self.open_shards) == MAX_OPEN_SHARDS:
                os.close(self.open_shards.pop(next(iter(self.open_shards))))
            self.open_shards[shard] = os.open(ShardFiles(self.shard_set.folder, shard).tar, os.O_RDONLY)
        return self.open_shards[shard]

    def damaged(self, sample: int, member: int, how: str) -> UserError:
        suffix = member_suffixes(int(self.table.num_prompts[sample]), self.shard_set.has_embeddings)[member]
        name = member_name(int(self.table.ids[sample]), suffix)
        tar = ShardFiles(self.shard_set.folder, int(self.table.shards[sample])).tar
        return UserError(f"{tar}: is damaged: {name}: {how}; delete the shard and {MAKE_AGAIN}")

    def close(self) -> None:
        while self.open_shards:
            os.close(self.open_shards.popitem()[1])
