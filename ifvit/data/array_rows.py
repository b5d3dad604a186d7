"""Arrays of the same shape that lie in many places of many tars, read into the rows of one array and checked.

Plain reads, no memory map: what the disk does not give is then an error, not the death of the process. What is done for
each row is one read and one crc32; all else is done for all rows at once.
"""

import itertools
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ifvit.data.row_memory import ScratchRows
from ifvit.data.sample_index import Bytes, Integers
from ifvit.data.shard_format import ShardFiles

OTHER_KIND = "it holds another kind of array than its shard's index says"
OTHER_CRC32 = "its crc32 differs"
CUT_OFF = "its shard is cut off before it ends"
MAX_OPEN_SHARDS = 256  # at the same time


class DamageError(Exception):
    """(row, what is wrong with its array)"""


class UnreadableError(Exception):
    """(row, why its shard cannot be read): the shard may be sound."""


class ArrayRows:
    """Reads from the shards in `folder`. For one thread. `checks_crc32` False is for benchmarks."""

    def __init__(self, folder: Path, checks_crc32: bool = True, max_open_shards: int = MAX_OPEN_SHARDS) -> None:
        self.folder = folder
        self.checks_crc32 = checks_crc32
        self.max_open_shards = max_open_shards
        self.headers = ScratchRows()
        self.open_shards: dict[int, int] = {}  # shard number to file descriptor, the one opened longest ago first

    def read(
        self,
        shards: Integers,
        starts: Integers,
        header: bytes,
        crc32: NDArray[np.uint32],
        values: Sequence[memoryview],
        tails: Sequence[memoryview] | None = None,
    ) -> None:
        """Of each row the array whose file starts at byte starts[k] into values[k], and what follows into tails[k].

        Each file starts with `header`, and has crc32[k]. Raises DamageError for a row where that is not so, and
        UnreadableError.
        """
        columns = [values] if tails is None else [values, tails]
        for first in range(0, len(values), self.max_open_shards):  # so many rows are in no more shards
            rows = slice(first, first + self.max_open_shards)
            try:
                self.read_some(shards[rows], starts[rows], header, crc32[rows], [column[rows] for column in columns])
            except (DamageError, UnreadableError) as fault:
                row, what = fault.args
                raise type(fault)(first + row, what) from fault

    def read_some(
        self,
        shards: Integers,
        starts: Integers,
        header: bytes,
        crc32: NDArray[np.uint32],
        columns: Sequence[Sequence[memoryview]],
    ) -> None:
        """As `read`, of at most `max_open_shards` rows; `columns` are the values, then any tails."""
        headers, header_rows = self.headers.take(len(shards), len(header))
        files = self.descriptors(shards.tolist())
        sizes: list[int] = []
        try:
            sizes.extend(map(os.preadv, files, zip(header_rows, *columns, strict=True), starts.tolist()))
        except OSError as error:
            raise unreadable(len(sizes), error) from error
        wanted = sum(np.fromiter(map(len, column), np.int64, len(files)) for column in (header_rows, *columns))
        refuse(np.array(sizes, np.int64) != wanted, CUT_OFF)
        self.check(headers, header, crc32, columns[0])

    def check(self, headers: Bytes, header: bytes, crc32: NDArray[np.uint32], values: Sequence[memoryview]) -> None:
        """Raises DamageError where headers[k] is not `header`, or it and values[k] together have another crc32."""
        refuse((headers != np.frombuffer(header, np.uint8)).any(axis=1), OTHER_KIND)
        if self.checks_crc32:
            found = map(zlib.crc32, values, itertools.repeat(zlib.crc32(header)))
            refuse(np.fromiter(found, np.uint32, len(values)) != crc32, OTHER_CRC32)

    def descriptors(self, shards: Sequence[int]) -> list[int]:
        """A file descriptor of the shard of each row; there are at most `max_open_shards` rows."""
        wanted = set(shards)
        if missing := wanted - self.open_shards.keys():
            unwanted = [shard for shard in self.open_shards if shard not in wanted]
            for shard in unwanted[: max(0, len(self.open_shards) + len(missing) - self.max_open_shards)]:
                os.close(self.open_shards.pop(shard))
            for shard in missing:
                try:
                    self.open_shards[shard] = os.open(ShardFiles(self.folder, shard).tar, os.O_RDONLY)
                except OSError as error:
                    raise unreadable(shards.index(shard), error) from error
        return [self.open_shards[shard] for shard in shards]

    def close(self) -> None:
        while self.open_shards:
            os.close(self.open_shards.popitem()[1])


def unreadable(row: int, error: OSError) -> UnreadableError:
    return UnreadableError(row, f"cannot be read ({error.strerror})")


def refuse(is_wrong: NDArray[np.bool_], what: str) -> None:
    if is_wrong.any():
        raise DamageError(int(is_wrong.argmax()), what)
