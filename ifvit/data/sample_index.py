"""Where the samples of a set of shards lie: its samples.index, mapped into memory and verified shard by shard.

Nothing is read at start: the system reads what is asked for, and ranks on one machine share it. At a billion samples it
has 60 GB, so it is mapped; the price is that a process dies where another one cuts the file off while it is read.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifvit.config.errors import UserError
from ifvit.data.shard_format import CRC32, MAKE_AGAIN, RECORD, index_size

Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]


class SampleIndex:
    """The records of all samples, numbered 0.. in the order of the shards.

    A shard's part is compared with its sha256 when it is first asked for. `shards` are the entries of index.json.
    """

    def __init__(self, path: Path, shards: Sequence[Mapping[str, Any]], has_embeddings: bool) -> None:
        self.path = path
        index_sizes = [index_size(shard["samples"], shard["prompts"], has_embeddings) for shard in shards]
        self.first_samples = np.concatenate([[0], np.cumsum([shard["samples"] for shard in shards])])
        self.starts = np.concatenate([[0], np.cumsum(index_sizes)])
        self.sha256 = [shard["index_sha256"] for shard in shards]
        self.is_verified = np.zeros(len(shards), np.bool_)
        self.content = mapped(path, int(self.starts[-1]))

    @property
    def num_samples(self) -> int:
        return int(self.first_samples[-1])

    def shards_of(self, samples: Integers) -> Integers:
        """The numbers of the shards that `samples` are in."""
        return np.searchsorted(self.first_samples, samples, side="right") - 1

    def records(self, samples: Integers) -> NDArray[np.void]:
        """The RECORD of each of `samples`. Raises UserError where the index of a shard is damaged."""
        shards = self.shards_of(samples)
        self.verify(shards)
        starts = self.starts[shards] + (samples - self.first_samples[shards]) * RECORD.itemsize
        return self.values(starts, RECORD)

    def prompt_embeds_crc32(self, samples: Integers, numbers: Integers) -> NDArray[np.uint32]:
        """crc32 of the `prompt_embeds` members that have `numbers` in the shards of `samples`; those are verified."""
        shards = self.shards_of(samples)
        counts = self.first_samples[shards + 1] - self.first_samples[shards]
        return self.values(self.starts[shards] + counts * RECORD.itemsize + numbers * CRC32.itemsize, CRC32)

    def values(self, starts: Integers, dtype: np.dtype) -> NDArray[Any]:
        return self.content[starts[:, None] + np.arange(dtype.itemsize)].view(dtype)[:, 0]

    def verify(self, shards: Integers) -> None:
        for shard in np.unique(shards[~self.is_verified[shards]]).tolist():
            part = self.content[self.starts[shard] : self.starts[shard + 1]]
            if hashlib.sha256(part.data).hexdigest() != self.sha256[shard]:
                raise UserError(
                    f"{self.path}: the part of shard {shard} is damaged (its sha256 differs); "
                    f"delete it and {MAKE_AGAIN}"
                )
            self.is_verified[shard] = True


def mapped(path: Path, size: int) -> Bytes:
    """The file, of `size` bytes, as an array that nothing can write to. Raises UserError for another size."""
    try:
        found = path.stat().st_size
        content = np.memmap(path, np.uint8, mode="r") if found else np.zeros(0, np.uint8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {MAKE_AGAIN}") from error
    if found != size:
        raise UserError(f"{path}: has {found:,} bytes instead of {size:,}; {MAKE_AGAIN}")
    return np.asarray(content)
