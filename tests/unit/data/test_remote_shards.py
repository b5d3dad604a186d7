"""ifvit/data/remote_shards.py: ranks that read an epoch through caches"""

import re
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from numpy.typing import NDArray

from data_prep.shards import make_shards
from ifvit.config.errors import UserError
from ifvit.data.lane_order import LaneOrder, rank_positions
from ifvit.data.reader import SampleReader
from ifvit.data.remote_shards import LaneShards, open_remote_shards, shared_room
from ifvit.data.shard_set import ShardSet
from tests.drawn_coco import draw_coco, tiny_recipe
from tests.forked_process import exit_code, forked
from tests.range_server import RangeServer
from tests.served_shards import cached, fetched, num_bytes, served

SEED, BATCH, NUM_LANES = 1234, 8, 4


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 shards of two samples."""
    root = tmp_path_factory.mktemp("source")
    coco = draw_coco(root / "coco", num_images=48)
    make_shards(tiny_recipe(coco, root / "shards", "data.samples_per_shard=2"))
    return root / "shards" / "train"


@pytest.fixture
def server(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setenv("no_proxy", "*")
    with served(source) as state:
        yield state


def order_of(shard_set: ShardSet) -> LaneOrder:
    return LaneOrder([shard["samples"] for shard in shard_set.index["shards"]], SEED, NUM_LANES)


def read_rows(shard_set: ShardSet, samples: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
    moments = np.empty((len(samples), *shard_set.shapes.moments), np.float16)
    text = np.empty((len(samples), *shard_set.shapes.prompt_embeds), np.float16)
    with closing(SampleReader(shard_set)) as reader:
        reader.read(samples, np.zeros_like(samples), moments, text, np.arange(len(samples)))
    return moments, text


def read_steps(
    location: str, cache_dir: Path, cache_bytes: int, steps: range, source: Path, rank: int = 0, world_size: int = 1
) -> None:
    """Reads a rank's batches through a cache, and compares them with local reading."""
    (shard_set,) = open_remote_shards([location], str(cache_dir), cache_bytes)
    local = ShardSet.open(source)
    order = order_of(local)
    with closing(LaneShards(order, shard_set, rank, world_size, world_size)) as lanes:
        for step in steps:
            positions = rank_positions(step, BATCH, rank, world_size)
            samples = order.samples(positions)
            with lanes.need(positions, samples):
                records = shard_set.samples.records(samples)
                found = read_rows(shard_set, samples)
                assert num_bytes(cache_dir) <= cache_bytes
            assert np.array_equal(records, local.samples.records(samples))
            assert all(map(np.array_equal, found, read_rows(local, samples)))


def room_for(source: Path, count: int) -> int:
    largest = max(path.stat().st_size for path in source.glob("*.tar"))
    return count * largest + (source / "samples.index").stat().st_size


def test_reading_through_a_small_cache_is_reading(server: RangeServer, source: Path, tmp_path: Path) -> None:
    """Two epochs of 24 shards, with room for 18: the lanes are in 16 at most."""
    read_steps(f"{server.url}/set", tmp_path, room_for(source, 18), range(12), source)
    assert set(fetched(server)) == set(range(24)) and len(cached(tmp_path)) <= 18


def test_reading_from_memory(source: Path, tmp_path: Path) -> None:
    for path in source.iterdir():
        if path.is_file():
            MemoryFileSystem().pipe_file(f"/stored/train/{path.name}", path.read_bytes())
    read_steps("memory://stored/train", tmp_path, 10**9, range(6), source)


def test_two_ranks_share_a_small_cache(server: RangeServer, source: Path, tmp_path: Path) -> None:
    location = f"{server.url}/set"
    bound = room_for(source, 20)
    ranks = [
        forked(lambda rank=rank: read_steps(location, tmp_path, bound, range(12), source, rank, 2)) for rank in (0, 1)
    ]
    assert [exit_code(rank) for rank in ranks] == [0, 0]
    assert set(fetched(server)) == set(range(24))


def test_a_rank_fetches_the_shards_of_its_lanes(server: RangeServer, source: Path, tmp_path: Path) -> None:
    """On a machine of its own, over one epoch."""
    order = order_of(ShardSet.open(source))
    own = np.unique(order.samples(np.arange(1, 48, 2)) // 2)
    read_steps(f"{server.url}/set", tmp_path, 10**9, range(3), source, rank=1, world_size=2)
    assert len(own) < 24 and set(fetched(server)) <= set(order.upcoming_shards(0, 48, 1, 2))
    read_steps(f"{server.url}/set", tmp_path, 10**9, range(6), source, rank=1, world_size=2)
    assert set(own) <= set(fetched(server))


def test_the_next_shards_are_on_their_way_before_they_are_needed(
    server: RangeServer, source: Path, tmp_path: Path
) -> None:
    (shard_set,) = open_remote_shards([f"{server.url}/set"], str(tmp_path), 10**9)
    order = order_of(shard_set)
    with closing(LaneShards(order, shard_set)) as lanes:
        positions = np.arange(BATCH)
        with lanes.need(positions, order.samples(positions)):
            pass
        upcoming = order.upcoming_shards(0, BATCH - 1 + order.window * NUM_LANES)
        assert set(lanes.cache.wanted) == set(upcoming.tolist())
        assert set(lanes.cache.wanted) > set(np.unique(order.samples(positions) // 2).tolist())


def test_what_the_batch_before_is_in_is_still_wanted(server: RangeServer, source: Path, tmp_path: Path) -> None:
    """Another thread may read it later than this one its own."""
    (shard_set,) = open_remote_shards([f"{server.url}/set"], str(tmp_path), 10**9)
    order = order_of(shard_set)
    with closing(LaneShards(order, shard_set)) as lanes:
        forgotten = 0
        lanes.stride = BATCH
        for first in range(BATCH, 96, BATCH):
            before = order.samples(np.arange(first - lanes.stride, first)) // 2
            lanes.look_ahead(first, first + BATCH - 1)
            assert set(before.tolist()) <= set(lanes.cache.wanted)
            forgotten += not set(before.tolist()) <= set(order.upcoming_shards(first, first + 24).tolist())
    assert forgotten  # the batches after it are in other shards


def test_several_threads_read(server: RangeServer, source: Path, tmp_path: Path) -> None:
    (shard_set,) = open_remote_shards([f"{server.url}/set"], str(tmp_path), room_for(source, 20))
    order = order_of(shard_set)
    local = ShardSet.open(source)
    faults = []
    with closing(LaneShards(order, shard_set)) as lanes:

        def read(first: int) -> None:
            try:
                for step in range(first, 24, 3):
                    positions = np.arange(step * BATCH, (step + 1) * BATCH)
                    samples = order.samples(positions)
                    with lanes.need(positions, samples):
                        found = read_rows(shard_set, samples)
                    assert all(map(np.array_equal, found, read_rows(local, samples)))
            except Exception as error:
                faults.append(error)

        threads = [threading.Thread(target=read, args=(first,)) for first in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not faults


def test_lanes_that_need_more_than_fits(server: RangeServer, source: Path, tmp_path: Path) -> None:
    (shard_set,) = open_remote_shards([f"{server.url}/set"], str(tmp_path), room_for(source, 5))
    before = threading.active_count()
    with pytest.raises(UserError) as refused:
        LaneShards(order_of(shard_set), shard_set, 1, 4, num_local_ranks=2)
    assert refused.match(
        rf"^data\.cache_bytes: is {room_for(source, 5):,}; .*ranks on a machine: 2; lanes of each: 1; "
    )
    assert threading.active_count() == before  # nothing was started
    LaneShards(order_of(shard_set), shard_set, 1, 4, num_local_ranks=1).close()


@pytest.mark.parametrize("room", [0, 1, 5])
def test_how_much_must_be_allowed_is_said_at_once(room: int, server: RangeServer, source: Path, tmp_path: Path) -> None:
    def ranks(cache_bytes: int) -> LaneShards:
        (shard_set,) = open_remote_shards([f"{server.url}/set"], str(tmp_path), cache_bytes)
        return LaneShards(order_of(shard_set), shard_set, 1, 4, num_local_ranks=2, num_rows=3)

    with pytest.raises(UserError) as refused:
        ranks(max(1, room_for(source, room)))
    said = re.search(r"shards of a lane for the 3 rows .*: at most \d+; .*; allow ([\d,]+), or ", str(refused.value))
    assert said, refused.value
    ranks(int(said[1].replace(",", ""))).close()


@pytest.mark.parametrize(
    "room, sizes, expected",
    [(100, [70], [100]), (100, [10, 500, 600], [10, 45, 45]), (100, [600, 10], [90, 10]), (100, [1, 2], [1, 99])],
)
def test_room_that_several_sets_share(room: int, sizes: list[int], expected: list[int]) -> None:
    assert shared_room(room, sizes) == expected
