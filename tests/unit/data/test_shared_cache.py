"""ifvit/data/shard_cache.py and shard_locks.py: several ranks with one folder"""

import os
import signal
import time
from pathlib import Path

import pytest

from ifvit.data import shard_cache as shard_cache_module
from ifvit.data.shard_locks import ShardLocks
from tests.forked_process import exit_code, forked
from tests.range_server import Cut, RangeServer
from tests.served_shards import (
    NUM_SHARDS,
    assert_same,
    cache_of,
    cached,
    eventually,
    fetched,
    num_bytes,
    opened,
    room_for,
)


def test_locks(tmp_path: Path) -> None:
    one, other = ShardLocks(tmp_path), ShardLocks(tmp_path)
    assert one.take_alone(3) and not other.take_alone(3) and not other.share(3)
    assert other.take_alone(4)
    assert one.share(3) and other.share(3) and not other.take_alone(3)
    one.give_back(3)
    assert other.take_alone(3)
    other.close()
    assert one.take_alone(3) and one.take_alone(4)
    one.close()


def test_two_processes_share_a_folder(shard_server: RangeServer, eight_shards: Path, tmp_path: Path) -> None:
    def read() -> None:
        with cache_of(shard_server, tmp_path) as cache:
            for shard in range(NUM_SHARDS):
                with cache.need([shard]):
                    assert_same(eight_shards, tmp_path, [shard])

    processes = [forked(read) for _ in range(2)]
    assert [exit_code(process) for process in processes] == [0, 0]
    assert sorted(fetched(shard_server)) == list(range(NUM_SHARDS))  # each once


def test_two_processes_share_a_folder_that_is_too_small_for_all(
    shard_server: RangeServer, eight_shards: Path, tmp_path: Path
) -> None:
    bound = room_for(eight_shards, 4)

    def read(step: int) -> None:
        with cache_of(shard_server, tmp_path, bound, num_ranks=2) as cache:
            for turn in range(3 * NUM_SHARDS):
                order = [(step * (turn + ahead)) % NUM_SHARDS for ahead in range(4)]
                cache.prefetch(order)
                with cache.need(order[:1]):
                    assert_same(eight_shards, tmp_path, order[:1])
                    assert num_bytes(tmp_path) <= bound

    processes = [forked(lambda step=step: read(step)) for step in (1, 3)]
    assert [exit_code(process) for process in processes] == [0, 0]
    assert num_bytes(tmp_path) <= bound


def test_a_killed_process_leaves_nothing_in_the_way(
    shard_server: RangeServer, eight_shards: Path, tmp_path: Path
) -> None:
    bound = room_for(eight_shards, 2)

    def read() -> None:
        with cache_of(shard_server, tmp_path, bound) as cache, cache.need([3]):
            pass

    opened(shard_server, tmp_path, bound)
    shard_server.cuts = [
        Cut(10**9),
        Cut(10**9),
        Cut(20_000, "stalls"),
    ]  # index.json, the part of the index, then the tar
    process = forked(read)
    eventually(lambda: num_bytes(tmp_path) > 0)
    os.kill(process, signal.SIGKILL)
    assert exit_code(process) == -signal.SIGKILL
    shard_server.goes_on.set()
    assert len(list(tmp_path.glob("*/shard-000003.tar.partial"))) == 1
    with cache_of(shard_server, tmp_path, bound) as cache:
        with cache.need([0]), cache.need([1]):  # which need the room that the partial file takes
            assert cached(tmp_path) == [0, 1] and num_bytes(tmp_path) <= bound
            assert not list(tmp_path.glob("*/*.partial"))
        with cache.need([3]):
            assert_same(eight_shards, tmp_path, [3])


def test_what_one_rank_is_done_with_goes_before_what_another_fetched_ahead(
    shard_server: RangeServer, eight_shards: Path, tmp_path: Path
) -> None:
    bound = room_for(eight_shards, 3)
    with cache_of(shard_server, tmp_path, bound) as cache, cache_of(shard_server, tmp_path, bound) as other:
        other.prefetch([1, 2])
        eventually(lambda: cached(tmp_path) == [1, 2])
        time.sleep(0.01)  # the clock of the file system is coarse
        cache.prefetch([0])
        with cache.need([0]):
            pass
        cache.prefetch([3])
        eventually(lambda: cached(tmp_path) == [1, 2, 3])


def test_what_was_fetched_ahead_makes_room_for_what_others_need(
    shard_server: RangeServer, eight_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks wait for each other: none may wait for room because of what another one will need."""
    monkeypatch.setattr(shard_cache_module, "ROOM_SECONDS", 0.2)
    bound = room_for(eight_shards, 3)
    with cache_of(shard_server, tmp_path, bound) as cache, cache_of(shard_server, tmp_path, bound) as other:
        cache.prefetch([0, 1, 2])
        eventually(lambda: cached(tmp_path) == [0, 1, 2] and cache.settled == {0, 1, 2})
        with other.need([5, 6]):
            assert_same(eight_shards, tmp_path, [5, 6])
        with cache.need([0, 1, 2]):
            assert_same(eight_shards, tmp_path, [0, 1, 2])


def test_fetching_ahead_removes_nothing_more_urgent(
    shard_server: RangeServer, eight_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_cache_module, "NUM_THREADS", 1)
    bound = room_for(eight_shards, 3)
    with (
        cache_of(shard_server, tmp_path, bound) as other,
        other.need([6, 7]),
        cache_of(shard_server, tmp_path, bound) as cache,
    ):
        cache.prefetch([0, 1, 2])
        eventually(lambda: cache.settled == {0, 1, 2})
        assert cached(tmp_path) == [0, 6, 7]
    assert sorted(fetched(shard_server)) == [0, 6, 7]
