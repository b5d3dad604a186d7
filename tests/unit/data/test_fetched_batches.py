"""The loader on shards at an address: the same samples as on local ones, in the order of lanes."""

import gc
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.shards import make_shards
from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.data.batch import Batch
from ifvit.data.loader import BatchLoader
from ifvit.data.reader import SampleReader
from ifvit.data.sample_stream import SampleStream
from ifvit.data.shard_set import ShardSet
from ifvit.data.training_data import TrainingData, open_training_data, without_secrets
from tests.drawn_coco import draw_coco, tiny_recipe
from tests.range_server import RangeServer, running_server
from tests.stored_samples import num_open_files, stored_ids

SEED, BATCH, NUM_LANES, DROPOUT = 1234, 8, 4, 0.3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten shards of two samples (train), and two shards of five others (val)."""
    root = tmp_path_factory.mktemp("sets")
    for split, num_images, per_shard in (("train", 20, 2), ("val", 10, 5)):
        coco = draw_coco(root / "coco", split, num_images)
        make_shards(tiny_recipe(coco, root / "shards", f"data.split={split}", f"data.samples_per_shard={per_shard}"))
    return root / "shards"


@pytest.fixture
def server(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setenv("no_proxy", "*")
    with running_server() as server:
        for split in ("train", "val"):
            server.files |= {f"/set/{split}/{path.name}": path.read_bytes() for path in (root / split).glob("*.*")}
        yield server


def recipe_of(server: RangeServer, cache_dir: Path, *overrides: str) -> Recipe:
    fields = {"shards_root": f"{server.url}/set", "cache_dir": cache_dir, "num_lanes": NUM_LANES}
    return tiny_recipe(
        Path("unused"), Path("unused"), *(f"data.{name}={each}" for name, each in fields.items()), *overrides
    )


def batches(data: TrainingData, count: int, first_step: int = 0, rank: int = 0, world_size: int = 1) -> list[Batch]:
    with BatchLoader(data, SEED, BATCH, DROPOUT, rank, world_size, world_size, first_step) as loader:
        loader.wait_for_first()
        return [
            Batch(**{name: None if value is None else value.clone() for name, value in vars(batch).items()})
            for batch in itertools.islice(loader, count)
        ]


def test_an_epoch_has_each_sample_once_with_its_own_content(server: RangeServer, root: Path, tmp_path: Path) -> None:
    data = open_training_data(recipe_of(server, tmp_path).data)
    local = ShardSet.open(root / "train")
    by_id = dict(zip(stored_ids(local), range(local.num_samples), strict=True))
    moments = np.empty((1, *local.shapes.moments), np.float16)
    text = np.empty((1, *local.shapes.prompt_embeds), np.float16)
    reader = SampleReader(local)
    seen = []
    for batch in batches(data, 5):
        for row, sample_id in enumerate(batch.sample_ids.tolist()):
            reader.read(np.array([by_id[sample_id]]), np.array([0]), moments, text, np.array([0]))
            assert np.array_equal(batch.moments[row], moments[0])
            seen.append(sample_id)
    reader.close()
    assert sorted(seen) == sorted(stored_ids(local) * 2)  # two epochs of 20 in 5 batches of 8
    assert sorted(seen[:20]) == stored_ids(local)


@pytest.mark.parametrize("world_size", [2, 4])
def test_any_number_of_ranks_and_a_resume_read_the_same(server: RangeServer, tmp_path: Path, world_size: int) -> None:
    data = open_training_data(recipe_of(server, tmp_path).data)
    whole = batches(data, 8)
    for rank in range(world_size):
        own = batches(data, 3, first_step=5, rank=rank, world_size=world_size)
        for batch, expected in zip(own, whole[5:], strict=True):
            assert torch.equal(batch.sample_ids, expected.sample_ids[rank::world_size])
            assert torch.equal(batch.prompt_embeds, expected.prompt_embeds[rank::world_size])
            assert torch.equal(batch.is_dropped, expected.is_dropped[rank::world_size])


def test_the_order_is_that_of_lanes(server: RangeServer, root: Path, tmp_path: Path) -> None:
    data = open_training_data(recipe_of(server, tmp_path).data)
    stream = SampleStream.of([np.full(10, 2)], [1.0], SEED, BATCH, NUM_LANES, [True])
    ids = np.array(stored_ids(ShardSet.open(root / "train")))
    for step, batch in enumerate(batches(data, 6)):
        assert batch.sample_ids.tolist() == ids[stream.visits(stream.rank_positions(step, 0, 1)).samples].tolist()


def mixture_of(server: RangeServer, root: Path, cache_dir: Path) -> Recipe:
    return recipe_of(
        server, cache_dir, "data.shards_root=null",
        f"data.mixture.a.shards_root={server.url}/set", "data.mixture.a.weight=2",
        f"data.mixture.b.shards_root={root}", "data.mixture.b.split=val", "data.mixture.b.weight=1",
        f"data.mixture.c.shards_root={server.url}/set?sig=secret", "data.mixture.c.split=val",
        "data.mixture.c.weight=1",
    )  # fmt: skip


def test_a_mixture_of_local_and_fetched_sets(server: RangeServer, root: Path, tmp_path: Path) -> None:
    server.files |= {f"{name}?sig=secret": content for name, content in server.files.items()}
    data = open_training_data(mixture_of(server, root, tmp_path).data)
    assert [shard_set.cache is not None for shard_set in data.sets] == [True, False, True]
    assert "secret" not in data.places
    whole = batches(data, 12)
    assert sorted(set(torch.cat([batch.sample_ids for batch in whole]).tolist())) == stored_ids(data.sets[0])
    for rank in (0, 1):
        own = batches(data, 12, rank=rank, world_size=2)
        for batch, expected in zip(own, whole, strict=True):
            assert torch.equal(batch.sample_ids, expected.sample_ids[rank::2])
            assert torch.equal(batch.moments, expected.moments[rank::2])


def test_a_rank_fetches_only_shards_of_its_lanes(server: RangeServer, tmp_path: Path) -> None:
    data = open_training_data(recipe_of(server, tmp_path).data)
    batches(data, 1, rank=1, world_size=4)
    shards = {request for request in server.requests if request.endswith(".tar")}
    assert 3 <= len(shards) < 10  # a lane has 5 samples an epoch


def test_a_shard_that_cannot_be_fetched_is_an_error_and_no_hang(server: RangeServer, tmp_path: Path) -> None:
    data = open_training_data(recipe_of(server, tmp_path).data)
    for name in list(server.files):
        if name.endswith(".tar"):
            del server.files[name]
    with (
        BatchLoader(data, SEED, BATCH, DROPOUT) as loader,
        pytest.raises(UserError, match=r"\.tar: there is no such file"),
    ):
        loader.wait_for_first()


def threads_to_end() -> set[threading.Thread]:
    """All but those that fsspec's event loop makes when it needs them, and keeps for the process."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


def test_close_ends_what_fetches(server: RangeServer, tmp_path: Path) -> None:
    data = open_training_data(recipe_of(server, tmp_path).data)
    gc.collect()  # files of earlier tests
    before = threads_to_end(), num_open_files()
    batches(data, 3)
    assert (threads_to_end(), num_open_files()) == before


def test_the_order_is_part_of_what_a_run_is_compared_by(server: RangeServer, root: Path, tmp_path: Path) -> None:
    remote = recipe_of(server, tmp_path)
    digests = {
        open_training_data(recipe.data).digest
        for recipe in (remote, recipe_of(server, tmp_path, "data.num_lanes=8"), tiny_recipe(Path("unused"), root))
    }
    assert len(digests) == 3
    assert open_training_data(recipe_of(server, tmp_path / "other").data).digest in digests


def test_what_a_run_keeps_has_no_secrets(tmp_path: Path) -> None:
    overrides = [
        "data.shards_root=null", f"data.cache_dir={tmp_path}",
        "data.mixture.a.shards_root=https://me:secret@host/a", "data.mixture.a.weight=1",
        "data.mixture.b.shards_root=s3://bucket/b?token=secret", "data.mixture.b.weight=1",
    ]  # fmt: skip
    kept = without_secrets(tiny_recipe(Path("unused"), Path("unused"), *overrides))
    assert {part.shards_root for part in kept.data.mixture.values()} == {"https://host/a", "s3://bucket/b"}
    plain = tiny_recipe(Path("unused"), Path("unused"))
    assert without_secrets(plain) == plain
    one = tiny_recipe(Path("x"), Path("y"), "data.shards_root=https://a:b@c/d?e", f"data.cache_dir={tmp_path}")
    assert without_secrets(one).data.shards_root == "https://c/d"


def test_an_address_needs_a_place_for_what_is_fetched() -> None:
    with pytest.raises(UserError, match=r"data\.cache_dir: is missing: shards at an address"):
        tiny_recipe(Path("unused"), Path("unused"), "data.shards_root=https://host/a")
