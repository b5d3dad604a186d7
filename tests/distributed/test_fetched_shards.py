"""Training on shards at an address: the same run at any number of ranks, after a resume, and without its secrets."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.shards import make_shards
from ifvit.runtime.distributed import Ranks
from tests.distributed.rank_pool import RankPool
from tests.distributed.training_runs import curve, train_run
from tests.drawn_coco import draw_coco, tiny_recipe
from tests.range_server import RangeServer, running_server

SIGNATURE = "?sig=secret"


@pytest.fixture(scope="module")
def shards_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    coco = draw_coco(tmp_path_factory.mktemp("coco"), num_images=20)
    make_shards(tiny_recipe(coco, root, "data.samples_per_shard=2"))
    return root


@pytest.fixture
def server(shards_root: Path) -> Iterator[RangeServer]:
    with running_server() as server:
        for path in (shards_root / "train").glob("*.*"):
            server.files[f"/set/train/{path.name}{SIGNATURE}"] = path.read_bytes()
        yield server


def train_on(ranks: Ranks, roots: list[str], cache_dir: Path, runs_root: Path, overrides: list[str]) -> int | str:
    """Each rank has a root of its own."""
    os.environ["no_proxy"] = "*"
    fields = [f"data.cache_dir={cache_dir}", "data.num_lanes=4", *overrides]
    return train_run(ranks, Path("unused"), runs_root, [f"data.shards_root={roots[ranks.rank]}", *fields])


def train(
    pools: dict[int, RankPool], roots: list[str], cache_dir: Path, runs_root: Path, *overrides: str
) -> list[int | str]:
    arguments = {"roots": roots, "cache_dir": cache_dir, "runs_root": runs_root, "overrides": list(overrides)}
    return pools[len(roots)].run(train_on, **arguments)


def test_ranks_and_resumes_change_nothing_and_no_secret_is_kept(
    pools: dict[int, RankPool], server: RangeServer, tmp_path: Path
) -> None:
    root = f"{server.url}/set{SIGNATURE}"
    assert train(pools, [root], tmp_path / "cache", tmp_path / "whole") == [0]
    for last_step, num_ranks in ((3, 2), (6, 1), (8, 2)):
        overrides = (f"train.max_steps={last_step}", f"train.micro_batch_size={8 // num_ranks}")
        codes = train(pools, [root] * num_ranks, tmp_path / f"cache{last_step}", tmp_path / "parts", *overrides)
        assert codes == [0] * num_ranks
    for ours, theirs in zip(curve(tmp_path / "parts"), curve(tmp_path / "whole"), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-6)
    kept = [path for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    assert [path for path in kept if b"secret" in path.read_bytes()] == []
    assert f"{server.url}/set" in (tmp_path / "whole/tiny/recipe.yaml").read_text()


def test_a_folder_has_another_order_than_an_address(
    pools: dict[int, RankPool], server: RangeServer, shards_root: Path, tmp_path: Path
) -> None:
    root = f"{server.url}/set{SIGNATURE}"
    assert train(pools, [root], tmp_path / "cache", tmp_path, "train.max_steps=1") == [0]
    (message,) = train(pools, [str(shards_root)], tmp_path / "cache", tmp_path, "train.max_steps=2")
    assert "or in another order (shards at an address come in lanes, those in a folder do not)" in str(message)


def test_ranks_that_see_different_shards_are_refused(
    pools: dict[int, RankPool], shards_root: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    make_shards(tiny_recipe(draw_coco(tmp_path / "coco", num_images=10), other))
    roots = [str(shards_root), str(other)]
    message, code = train(pools, roots, tmp_path / "cache", tmp_path)
    assert code == 2
    assert "has other shards on rank 1 than on rank 0 (1 of 2 ranks differ)" in str(message)
    assert not (tmp_path / "tiny").exists()


def test_first_shards_that_are_damaged_end_all_ranks_before_the_first_step(
    pools: dict[int, RankPool], server: RangeServer, tmp_path: Path
) -> None:
    for name, content in server.files.items():
        if ".tar" in name:
            server.files[name] = content[:-1] + bytes([content[-1] ^ 1])
    roots = [f"{server.url}/set{SIGNATURE}"] * 2
    message, code = train(pools, roots, tmp_path / "cache", tmp_path / "runs")
    assert code == 2
    assert "also when fetched again; upload it again" in str(message) and "secret" not in str(message)


def test_too_small_a_cache_is_refused_before_there_is_a_run(
    pools: dict[int, RankPool], server: RangeServer, tmp_path: Path
) -> None:
    roots = [f"{server.url}/set{SIGNATURE}"] * 2
    message, code = train(pools, roots, tmp_path / "cache", tmp_path / "runs", "data.cache_bytes=60000")
    assert code == 2
    assert "data.cache_bytes: is 60,000; the index of" in str(message) and "ranks on a machine: 2" in str(message)
    assert not (tmp_path / "runs").exists()
