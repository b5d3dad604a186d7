"""ifvit/data/array_rows.py and row_memory.py"""

import zlib
from pathlib import Path

import numpy as np
import pytest

from ifvit.data.array_rows import ArrayRows, DamageError, UnreadableError
from ifvit.data.row_memory import ScratchRows, byte_rows
from ifvit.data.shard_format import ShardFiles
from tests.stored_samples import num_open_files

HEADER, SIZE, TAIL = b"header: ", 24, 5
NUM_SHARDS, PER_SHARD = 7, 3
SPAN = len(HEADER) + SIZE + TAIL


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for shard in range(NUM_SHARDS):
        content = b"".join(HEADER + random.bytes(SIZE + TAIL) for _ in range(PER_SHARD))
        ShardFiles(tmp_path, shard).tar.write_bytes(content)
    return tmp_path


class Rows:
    """Rows 0..20 of the shards in a shuffled order, and the arrays that they are read into."""

    def __init__(self, folder: Path) -> None:
        order = np.random.default_rng(1).permutation(NUM_SHARDS * PER_SHARD)
        self.shards, places = np.divmod(order, PER_SHARD)
        self.starts = places * SPAN
        self.contents = [
            ShardFiles(folder, shard).tar.read_bytes()[start : start + SPAN]
            for shard, start in zip(self.shards, self.starts, strict=True)
        ]
        self.crc32 = np.array([zlib.crc32(content[: len(HEADER) + SIZE]) for content in self.contents], np.uint32)
        self.values = np.zeros((len(order), SIZE), np.uint8)
        self.tails = np.zeros((len(order), TAIL), np.uint8)

    def read(self, arrays: ArrayRows, has_tails: bool = True) -> None:
        every = np.arange(len(self.values))
        tails = byte_rows(self.tails, every) if has_tails else None
        arrays.read(self.shards, self.starts, HEADER, self.crc32, byte_rows(self.values, every), tails)


@pytest.mark.parametrize("max_open_shards", [1, 2, 100])
def test_rows_are_read_whatever_is_open(folder: Path, max_open_shards: int) -> None:
    rows = Rows(folder)
    arrays = ArrayRows(folder, max_open_shards=max_open_shards)
    before = num_open_files()
    for has_tails in (False, True):
        rows.read(arrays, has_tails)
        assert [value.tobytes() for value in rows.values] == [content[len(HEADER) : -TAIL] for content in rows.contents]
        assert rows.tails.any() == has_tails
        assert num_open_files() - before == len(arrays.open_shards) <= max_open_shards
    assert [tail.tobytes() for tail in rows.tails] == [content[-TAIL:] for content in rows.contents]
    arrays.close()
    assert num_open_files() == before


@pytest.mark.parametrize("max_open_shards", [2, 100])
@pytest.mark.parametrize(
    "damage, what",
    [
        ("missing", r"cannot be read \(No such file"),
        ("a folder", r"cannot be read \(Is a directory"),
        ("cut", "its shard is cut off"),
        ("header", "another kind of array"),
        ("value", "its crc32 differs"),
    ],
)
def test_the_damaged_row_is_named(folder: Path, damage: str, what: str, max_open_shards: int) -> None:
    rows = Rows(folder)
    row = 13
    tar = ShardFiles(folder, int(rows.shards[row])).tar
    content = bytearray(tar.read_bytes())
    start = int(rows.starts[row])
    if damage in ("missing", "a folder"):
        tar.unlink()
        row = int(np.flatnonzero(rows.shards == rows.shards[row])[0])  # the first that is in that shard
        if damage == "a folder":
            tar.mkdir()
    elif damage == "cut":
        tar.write_bytes(content[: start + SPAN - 1])
        row = int(np.flatnonzero((rows.shards == rows.shards[row]) & (rows.starts >= start))[0])
    else:
        content[start + (0 if damage == "header" else len(HEADER))] ^= 1
        tar.write_bytes(content)
    with pytest.raises((DamageError, UnreadableError), match=what) as found:
        rows.read(ArrayRows(folder, max_open_shards=max_open_shards))
    assert isinstance(found.value, UnreadableError) == what.startswith("cannot")
    assert found.value.args[0] == row


def test_scratch_memory_is_used_again() -> None:
    scratch = ScratchRows()
    content, views = scratch.take(5, 16)
    views[3][:] = b"0123456789abcdef"
    assert content.shape == (5, 16) and content[3].tobytes() == b"0123456789abcdef"
    again, _ = scratch.take(2, 16)
    assert np.shares_memory(content, again) and again.shape == (2, 16)
    assert scratch.take(0, 0)[0].shape == (0, 0)
    assert not np.shares_memory(content, scratch.take(6, 16)[0])
