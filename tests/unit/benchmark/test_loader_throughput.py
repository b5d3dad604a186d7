"""ifvit/benchmark/loader_throughput.py: what is timed reads every set of shards, also with uneven captions."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from data_prep.shards import make_shards
from ifvit.benchmark.loader_throughput import measure_loader, plain_batches
from ifvit.data.shard_set import ShardSet
from tests.drawn_coco import draw_coco, tiny_recipe


@pytest.fixture(scope="module", params=["embeddings", "token_ids"])
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten samples of one to three captions."""
    root = tmp_path_factory.mktemp("shards")
    make_shards(tiny_recipe(draw_coco(root / "coco"), root, f"data.text_storage={request.param}"))
    return root / "train"


def test_plain_batches_hold_all_members_of_all_samples(shards: Path) -> None:
    batches = list(itertools.islice(plain_batches(shards, 5), 2))  # one epoch
    for batch in batches:
        assert batch["latents.npy"].shape == (5, 8, 4, 4)
        assert len(batch["input_ids.npy"]) == len(batch["prompts.json"]) == 5
    ids = [ids for batch in batches for ids in batch["input_ids.npy"]]
    assert sorted(map(len, ids)) == sorted(1 + number % 3 for number in range(10))
    assert all(isinstance(each, np.ndarray) for each in ids)


def test_every_way_of_reading_is_timed(shards: Path) -> None:
    ways, memory = measure_loader(ShardSet.open(shards), 5, 2, 20, lambda: None)
    assert [way.name for way in ways] == ["ifvit", "ifvit without crc32", "plain webdataset"]
    assert all(len(way.windows) == 2 and way.samples_per_second > 0 for way in ways) and len(memory) == 2
