"""ifvit/data/cache_folder.py and remote_index.py: what is fetched is what was stored"""

import json
from pathlib import Path

import pytest

from ifvit.config.errors import UserError
from ifvit.data.sealed_json import sealed_json
from tests.range_server import Cut, RangeServer
from tests.served_shards import (
    assert_same,
    cache_of,
    cached,
    fetched,
    index_of,
    opened,
)


class Damaged(dict):
    """Files of which some come damaged, so many times."""

    def __init__(self, files: dict[str, bytes], path: str, times: int) -> None:
        super().__init__(files)
        self.path, self.times = path, times

    def get(self, path: str, default: bytes | None = None) -> bytes | None:
        content = super().get(path, default)
        if path == self.path and self.times and content is not None:
            self.times -= 1
            return content[:-1] + bytes([content[-1] ^ 1])
        return content


def test_the_next_start_finds_what_is_there(shard_server: RangeServer, eight_shards: Path, tmp_path: Path) -> None:
    with cache_of(shard_server, tmp_path) as cache, cache.need([0, 2]):
        pass
    shard_server.requests.clear()
    with cache_of(shard_server, tmp_path) as cache, cache.need([0, 2]):
        assert_same(eight_shards, tmp_path, [0, 2])
    assert shard_server.requests == ["GET /set/index.json"]


def test_other_shards_at_the_same_address_have_a_folder_of_their_own(
    shard_server: RangeServer, eight_shards: Path, tmp_path: Path
) -> None:
    with cache_of(shard_server, tmp_path) as cache, cache.need([0]):
        pass
    shard_server.files["/set/index.json"] = sealed_json(index_of(eight_shards) | {"split": "other"})
    with cache_of(shard_server, tmp_path) as cache, cache.need([0]):
        pass
    assert fetched(shard_server) == [0, 0] and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("way", ["removed", "cut", "index lost"])
def test_what_is_lost_is_fetched_again(way: str, shard_server: RangeServer, eight_shards: Path, tmp_path: Path) -> None:
    with cache_of(shard_server, tmp_path) as cache, cache.need([0, 1]):
        pass
    (folder,) = tmp_path.iterdir()
    tar = folder / "shard-000001.tar"
    if way == "removed":
        tar.unlink()
    elif way == "cut":
        tar.write_bytes(tar.read_bytes()[:-512])
    else:
        (folder / "samples.index").unlink()
    with cache_of(shard_server, tmp_path) as cache, cache.need([1]):
        assert_same(eight_shards, tmp_path, [1])
    assert sorted(fetched(shard_server)) == [0, 1, 1]


@pytest.mark.parametrize("name", ["index.json", "null_prompt_embeds.npy", "samples.index"])
def test_damage_of_the_small_files_is_mended(
    name: str, shard_server: RangeServer, eight_shards: Path, tmp_path: Path
) -> None:
    opened(shard_server, tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / name).write_bytes(b"{")
    opened(shard_server, tmp_path)
    assert (folder / name).stat().st_size == (eight_shards / name).stat().st_size


def test_an_index_that_can_never_fit(shard_server: RangeServer, eight_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.cache_bytes: is [\d,]+, but the index alone of .* has [\d,]+ bytes; "):
        opened(shard_server, tmp_path, (eight_shards / "samples.index").stat().st_size - 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["shard-000004.tar", "shard-000004.index", "null_prompt_embeds.npy"])
def test_damage_on_the_way_is_mended_once_and_named_when_it_stays(
    name: str, shard_server: RangeServer, eight_shards: Path, tmp_path: Path
) -> None:
    shard_server.files = Damaged(shard_server.files, f"/set/{name}", 1)
    with cache_of(shard_server, tmp_path / "once") as cache, cache.need([4]):
        assert_same(eight_shards, tmp_path / "once", [4])
    shard_server.files = Damaged(shard_server.files, f"/set/{name}", 1000)
    shard_server.requests.clear()
    with pytest.raises(UserError) as refused:  # noqa: SIM117
        with cache_of(shard_server, tmp_path / "ever") as cache, cache.need([4]):
            pass
    message = rf"^{shard_server.url}/set/{name}: has sha256 [0-9a-f]{{64}}, index\.json there says [0-9a-f]{{64}}, "
    assert refused.match(message)
    assert shard_server.requests.count(f"GET /set/{name}") == 2
    assert cached(tmp_path / "ever") == [] and not list(tmp_path.glob("ever/*/*.partial"))


@pytest.mark.parametrize("change", [lambda content: content[:-512], lambda content: content + bytes(512)])
def test_another_size_is_damage(change, shard_server: RangeServer, tmp_path: Path) -> None:
    shard_server.files["/set/shard-000002.tar"] = change(shard_server.files["/set/shard-000002.tar"])
    with cache_of(shard_server, tmp_path) as cache, pytest.raises(UserError, match=r"shard-000002\.tar: has sha256"):
        cache.need([2]).__enter__()


def test_cut_connections_and_busy_servers(shard_server: RangeServer, eight_shards: Path, tmp_path: Path) -> None:
    with cache_of(shard_server, tmp_path) as cache:
        shard_server.cuts = [Cut(10), Cut(10_000, "is reset"), Cut(10**9), Cut(5000)]
        shard_server.answers = [503]
        with cache.need([1]):
            assert_same(eight_shards, tmp_path, [1])


def test_no_folder_there(shard_server: RangeServer, tmp_path: Path) -> None:
    shard_server.files.clear()
    with pytest.raises(UserError, match=rf"^{shard_server.url}/set/index\.json: there is no such file"):
        opened(shard_server, tmp_path)
    assert not list(tmp_path.iterdir())


def changed_index(eight_shards: Path, **changes: object) -> bytes:
    index = index_of(eight_shards)
    index["shards"][3] |= changes
    return sealed_json(index)


@pytest.mark.parametrize(
    "changes",
    [
        {"tar": "../../shard-000003.tar"},
        {"tar": "/tmp/shard-000003.tar"},
        {"tar": "shard-000004.tar"},
        {"tar": 3},
        {"size": -1},
        {"size": "1"},
        {"samples": True},
        {"prompts": 1.5},
        {"sha256": "../" * 21 + "a"},
        {"index_sha256": ""},
    ],
)
def test_a_bad_entry_is_refused(changes: dict, shard_server: RangeServer, eight_shards: Path, tmp_path: Path) -> None:
    shard_server.files["/set/index.json"] = changed_index(eight_shards, **changes)
    with pytest.raises(UserError, match=rf"^{shard_server.url}/set/index\.json: the entry of shard 3 is not one"):
        opened(shard_server, tmp_path / "cache")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content, message",
    [
        (b"{", "is damaged or of another version"),
        (b"[]", "is damaged or of another version"),
        (b"\xff", "is damaged or of another version"),
        (sealed_json({"format_version": 99, "shards": []}), "has shard format 99, this program reads 2"),
        (sealed_json({"format_version": 2, "shards": []}), "is damaged or of another version"),
        (sealed_json({"format_version": 2, "shards": 3}), "is damaged or of another version"),
        (sealed_json({"format_version": 2, "shards": [[]]}), "is damaged or of another version"),
    ],
)
def test_an_index_that_is_none(content: bytes, message: str, shard_server: RangeServer, tmp_path: Path) -> None:
    shard_server.files["/set/index.json"] = content
    with pytest.raises(UserError, match=rf"^{shard_server.url}/set/index\.json: {message}"):
        opened(shard_server, tmp_path)


def test_what_is_printed_of_an_index_is_short(shard_server: RangeServer, eight_shards: Path, tmp_path: Path) -> None:
    shard_server.files["/set/index.json"] = json.dumps({"a": "\x1b[31m" * 1000}).encode()
    with pytest.raises(UserError) as refused:
        opened(shard_server, tmp_path)
    assert len(str(refused.value)) < 200 and "\x1b" not in str(refused.value)


def test_a_part_of_another_length_is_not_written(shard_server: RangeServer, eight_shards: Path, tmp_path: Path) -> None:
    """It would overwrite the part of the next shard."""
    shard_server.files["/set/index.json"] = changed_index(eight_shards, samples=1)
    with cache_of(shard_server, tmp_path) as cache, pytest.raises(UserError, match="the entry of shard 3 is not one"):
        cache.need([3]).__enter__()


def test_huge_counts_take_no_disk(shard_server: RangeServer, eight_shards: Path, tmp_path: Path) -> None:
    shard_server.files["/set/index.json"] = changed_index(eight_shards, samples=10**30)
    with pytest.raises(UserError, match=r"^data\.cache_bytes: "):
        opened(shard_server, tmp_path)


def test_a_cache_folder_that_cannot_be_written(shard_server: RangeServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^data\.cache_dir: cannot write to .*/file/"):
        opened(shard_server, tmp_path / "file")
