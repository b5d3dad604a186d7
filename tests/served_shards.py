"""A web server that has a set of shards, and caches of it."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ifvit.data.cache_folder import CacheFolder
from ifvit.data.remote_shards import open_remote_shards
from ifvit.data.sealed_json import unsealed
from ifvit.data.shard_cache import ShardCache
from tests.range_server import RangeServer, running_server

NUM_SHARDS = 8  # of the set that most tests of caches have


@contextmanager
def served(folder: Path) -> Iterator[RangeServer]:
    """The files of `folder` at /set."""
    with running_server() as server:
        server.files |= {f"/set/{path.name}": path.read_bytes() for path in folder.iterdir() if path.is_file()}
        yield server


def opened(server: RangeServer, cache_dir: Path, cache_bytes: int = 10**9) -> CacheFolder:
    (shard_set,) = open_remote_shards([f"{server.url}/set"], str(cache_dir), cache_bytes)
    assert shard_set.cache is not None
    return shard_set.cache


@contextmanager
def cache_of(
    server: RangeServer, cache_dir: Path, cache_bytes: int = 10**9, num_ranks: int = 1
) -> Iterator[ShardCache]:
    cache = ShardCache(opened(server, cache_dir, cache_bytes), num_ranks, announces=False)
    try:
        yield cache
    finally:
        cache.close()


def fetched(server: RangeServer) -> list[int]:
    """The shards whose tars were asked for, in that order."""
    found = (re.fullmatch(r"GET /set/shard-(\d{6})\.tar", request) for request in server.requests)
    return [int(name[1]) for name in found if name]


def cached(folder: Path) -> list[int]:
    """The shards whose tars are there."""
    return sorted(int(path.stem.removeprefix("shard-")) for path in folder.glob("*/shard-*.tar"))


def num_bytes(folder: Path) -> int:
    """Of tars, whole or not, while they come and go."""
    sizes: dict[str, int] = {}
    for path in folder.glob("*/shard-*"):
        with suppress(FileNotFoundError):
            sizes[path.name.removesuffix(".partial")] = path.stat().st_size
    return sum(sizes.values())


def index_of(source: Path) -> dict:
    return unsealed((source / "index.json").read_bytes())


def room_for(source: Path, count: float) -> int:
    """Bytes that hold `count` shards, which are of one size here but for one, and the index."""
    largest = max(shard["size"] for shard in index_of(source)["shards"])
    return int(count * largest) + (source / "samples.index").stat().st_size


def assert_same(source: Path, cache_dir: Path, shards: list[int]) -> None:
    (folder,) = cache_dir.iterdir()
    for shard in shards:
        name = f"shard-{shard:06d}.tar"
        assert (folder / name).read_bytes() == (source / name).read_bytes()
    whole, sparse = ((each / "samples.index").read_bytes() for each in (source, folder))
    assert len(whole) == len(sparse)
    start = 0
    for number in range(NUM_SHARDS):
        part = (source / f"shard-{number:06d}.index").read_bytes()
        assert number not in shards or sparse[start : start + len(part)] == part
        start += len(part)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
