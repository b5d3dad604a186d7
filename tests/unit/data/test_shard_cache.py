"""ifvit/data/shard_cache.py: what is fetched when, and what makes room for it"""

import errno
import threading
import time
from pathlib import Path

import pytest

from ifvit.config.errors import UserError
from ifvit.data import remote_folder as remote_folder_module
from ifvit.data import shard_cache as shard_cache_module
from ifvit.data.shard_cache import ShardCache
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


def test_what_is_needed_is_fetched_once(shard_server: RangeServer, eight_shards: Path, tmp_path: Path) -> None:
    with cache_of(shard_server, tmp_path) as cache:
        assert cached(tmp_path) == []
        for shards in ([3, 1], [1, 5], [3]):
            with cache.need(shards):
                assert_same(eight_shards, tmp_path, shards)
    assert sorted(fetched(shard_server)) == cached(tmp_path) == [1, 3, 5]
    (folder,) = tmp_path.iterdir()
    assert not list(folder.glob("*partial*"))


def test_prefetch_comes_before_need(shard_server: RangeServer, eight_shards: Path, tmp_path: Path) -> None:
    with cache_of(shard_server, tmp_path) as cache:
        cache.prefetch([6, 2, 4])
        eventually(lambda: cached(tmp_path) == [2, 4, 6])
        before = list(shard_server.requests)
        with cache.need([2, 6]):
            assert_same(eight_shards, tmp_path, [2, 6])
        assert shard_server.requests == before


def test_prefetch_takes_the_most_urgent_first(
    shard_server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_cache_module, "NUM_THREADS", 1)
    with cache_of(shard_server, tmp_path) as cache:
        cache.prefetch([6, 2, 7, 0])
        eventually(lambda: len(cached(tmp_path)) == 4)
    assert fetched(shard_server) == [6, 2, 7, 0]


def test_what_is_needed_goes_before_what_is_wanted(
    shard_server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_cache_module, "NUM_THREADS", 1)
    with cache_of(shard_server, tmp_path) as cache:
        shard_server.cuts = [Cut(0, "stalls")]  # the first answer takes long
        cache.prefetch([6, 2, 7, 0])
        eventually(lambda: len(shard_server.requests) > 2)
        thread = threading.Thread(target=lambda: cache.need([5]).__enter__())
        thread.start()
        eventually(lambda: 5 in cache.urgent)
        shard_server.goes_on.set()
        thread.join()
    assert fetched(shard_server)[:2] == [6, 5]


def test_bytes_stay_bounded_and_all_can_be_read(shard_server: RangeServer, eight_shards: Path, tmp_path: Path) -> None:
    """Also counted while files arrive: whenever the server is asked for something."""
    bound = room_for(eight_shards, 3)
    most = 0

    class Counting(list):
        def append(self, request: str) -> None:
            nonlocal most
            most = max(most, num_bytes(tmp_path))
            super().append(request)

    with cache_of(shard_server, tmp_path, bound) as cache:
        shard_server.requests = Counting()
        for first in range(3 * NUM_SHARDS):
            order = [(first + ahead) % NUM_SHARDS for ahead in range(5)]
            cache.prefetch(order)
            with cache.need(order[:2]):
                assert_same(eight_shards, tmp_path, order[:2])
                assert num_bytes(tmp_path) <= bound
    assert most <= bound
    assert set(fetched(shard_server)) == set(range(NUM_SHARDS))
    assert len(fetched(shard_server)) <= 4 * NUM_SHARDS  # not again and again


def test_the_one_used_longest_ago_goes_first(shard_server: RangeServer, eight_shards: Path, tmp_path: Path) -> None:
    with cache_of(shard_server, tmp_path, room_for(eight_shards, 3)) as cache:
        for shard in (0, 1, 2, 0):
            with cache.need([shard]):
                pass
            time.sleep(0.01)  # the clock of the file system is coarse
        with cache.need([3]):
            assert cached(tmp_path) == [0, 2, 3]


def test_what_is_no_longer_wanted_goes_before_what_is(
    shard_server: RangeServer, eight_shards: Path, tmp_path: Path
) -> None:
    with cache_of(shard_server, tmp_path, room_for(eight_shards, 3)) as cache:
        cache.prefetch([0, 1, 2])
        eventually(lambda: cached(tmp_path) == [0, 1, 2])
        with cache.need([1]):
            pass
        cache.prefetch([0, 2, 5])
        eventually(lambda: cached(tmp_path) == [0, 2, 5])


def test_what_is_wanted_stays_longer_than_what_is_not(
    shard_server: RangeServer, eight_shards: Path, tmp_path: Path
) -> None:
    with cache_of(shard_server, tmp_path, room_for(eight_shards, 3)) as cache:
        cache.prefetch([0, 1])
        eventually(lambda: cached(tmp_path) == [0, 1])
        with cache.need([7]):
            pass
        with cache.need([3]):
            assert cached(tmp_path) == [0, 1, 3]
        with cache.need([3, 5]):  # for which something wanted must go: what is wanted last
            assert cached(tmp_path) == [0, 3, 5]


def test_a_rank_fetches_no_more_ahead_than_its_share(
    shard_server: RangeServer, eight_shards: Path, tmp_path: Path
) -> None:
    with cache_of(shard_server, tmp_path, room_for(eight_shards, 4), num_ranks=2) as cache:
        cache.prefetch([5, 4, 3, 2])
        eventually(lambda: cached(tmp_path) == [4, 5])
        with cache.need([0]):  # fetched after all that was to be fetched ahead
            assert cached(tmp_path) == [0, 4, 5]


def test_a_rank_fetches_all_it_wants_where_all_fits(
    shard_server: RangeServer, eight_shards: Path, tmp_path: Path
) -> None:
    all_bytes = sum(path.stat().st_size for path in eight_shards.glob("*.tar"))
    bound = all_bytes + (eight_shards / "samples.index").stat().st_size
    with cache_of(shard_server, tmp_path, bound, num_ranks=2) as cache:
        cache.prefetch(range(NUM_SHARDS))
        eventually(lambda: cached(tmp_path) == list(range(NUM_SHARDS)))


def test_what_is_read_stays(
    shard_server: RangeServer, eight_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_cache_module, "ROOM_SECONDS", 0.2)
    with cache_of(shard_server, tmp_path, room_for(eight_shards, 2)) as cache, cache.need([0, 1]):
        with pytest.raises(UserError, match=r"^data\.cache_bytes: no room for .*shard-000002\.tar"):
            cache.need([2]).__enter__()
        assert_same(eight_shards, tmp_path, [0, 1])


def test_a_run_is_not_stopped_by_what_another_one_reads(
    shard_server: RangeServer, eight_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs share what they have in common; each has its own room beside what others read."""
    monkeypatch.setattr(shard_cache_module, "ROOM_SECONDS", 0.2)
    room = room_for(eight_shards, 2)
    with (
        cache_of(shard_server, tmp_path, room) as cache,
        cache.need([0, 1]),
        cache_of(shard_server, tmp_path, room) as other,
    ):
        with other.need([1, 2]):
            assert_same(eight_shards, tmp_path, [0, 1, 2])
            with pytest.raises(UserError, match=r"^data\.cache_bytes: no room for .*shard-000003\.tar"):
                other.need([3]).__enter__()
        with other.need([4]):  # 2 has gone
            assert cached(tmp_path) == [0, 1, 4]


def test_a_shard_that_cannot_be_removed_stops_nobody_for_ever(
    shard_server: RangeServer, eight_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cache_of(shard_server, tmp_path, room_for(eight_shards, 1)) as cache:
        with cache.need([0]):
            pass

        def fails(shard: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(cache.folder, "remove", fails)
        with pytest.raises(UserError, match=r"^data\.cache_dir: cannot write to .* \(Input/output error\)"):
            cache.need([1]).__enter__()
        with cache.need([0]):
            pass


def test_room_is_waited_for(shard_server: RangeServer, eight_shards: Path, tmp_path: Path) -> None:
    with cache_of(shard_server, tmp_path, room_for(eight_shards, 2)) as cache, cache.need([5]):
        reading = cache.need([0])
        reading.__enter__()
        thread = threading.Thread(target=lambda: cache.need([1]).__enter__())
        thread.start()
        eventually(lambda: 1 in cache.urgent)
        reading.__exit__(None, None, None)
        thread.join(20)
        assert cached(tmp_path) == [1, 5]


def test_a_missing_shard_is_named_where_it_is_needed(shard_server: RangeServer, tmp_path: Path) -> None:
    del shard_server.files["/set/shard-000002.tar"]
    with cache_of(shard_server, tmp_path) as cache:
        cache.prefetch([2, 3])  # raises nothing
        eventually(lambda: cached(tmp_path) == [3] and 2 in cache.settled)
        for _ in range(2):
            with pytest.raises(UserError, match=rf"^{shard_server.url}/set/shard-000002\.tar: there is no such file"):
                cache.need([2, 3]).__enter__()
        with cache.need([3]):
            pass


def test_faults_of_the_program_reach_who_needs_the_shard(
    shard_server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cache_of(shard_server, tmp_path) as cache:
        monkeypatch.setattr(cache.folder, "fetch", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cache.need([2]).__enter__()


def test_says_once_where_it_is(shard_server: RangeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = opened(shard_server, tmp_path)
    for announces in (True, False):
        cache = ShardCache(folder, announces=announces)
        for shards in ([0, 1], [2, 3]):
            with cache.need(shards):
                pass
        cache.close()
    err = capsys.readouterr().err
    assert (
        err.splitlines()[0]
        == f"{shard_server.url}/set: shards are kept in {folder.folder}, at most 1,000,000,000 bytes"
    )
    assert err.splitlines()[1].startswith("fetching shards: 2/2 shard")
    assert len(err.splitlines()) == 2


def test_close_ends_threads_and_waits(shard_server: RangeServer, tmp_path: Path) -> None:
    before = threading.active_count()
    with cache_of(shard_server, tmp_path) as cache:
        shard_server.cuts = [Cut(10**9), Cut(10, "stalls")]
        with pytest.raises(remote_folder_module.StoppedError):
            closing = threading.Timer(0.3, cache.close)
            closing.start()
            with cache.need([0]):
                pass
        shard_server.goes_on.set()
        eventually(lambda: not any(thread.is_alive() for thread in cache.threads))
    assert threading.active_count() <= before + 1  # fsspec's own
