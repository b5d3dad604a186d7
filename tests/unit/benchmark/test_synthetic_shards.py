"""ifvit/benchmark/synthetic_shards.py and loader_throughput.py"""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import webdataset

from ifvit.benchmark.loader_throughput import Throughput, measure_loader
from ifvit.benchmark.synthetic_shards import write_synthetic_shards
from ifvit.config.schema import ModelConfig
from ifvit.data.loader import BatchLoader
from ifvit.data.shard_set import ShardSet
from ifvit.data.training_data import TrainingData
from tests.stored_samples import stored_ids

MODEL = ModelConfig(sample_size=4, hidden_size=16, num_attention_heads=2, text_hidden_size=8, num_text_tokens=6)


@pytest.fixture(params=["embeddings", "token_ids"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write_synthetic_shards(tmp_path, MODEL, request.param, num_samples=20, num_prompts=3, samples_per_shard=8)
    return tmp_path


def test_the_loader_reads_them_like_real_ones(folder: Path) -> None:
    shard_set = ShardSet.open(folder)
    stored = {
        sample["__key__"]: sample["latents.npy"]
        for sample in webdataset.WebDataset(list(map(str, sorted(folder.glob("*.tar")))), shardshuffle=False).decode()
    }
    with BatchLoader(TrainingData((shard_set,)), 0, 4, 0.1) as loader:
        ids = []
        for batch in itertools.islice(loader, 5):
            for sample_id, moments in zip(batch.sample_ids.tolist(), batch.moments, strict=True):
                assert np.array_equal(moments.numpy(), stored[f"{sample_id:012d}"])
                ids.append(sample_id)
    assert sorted(ids) == stored_ids(shard_set) == list(range(20))
    for shard in shard_set.index["shards"]:
        assert hashlib.sha256((folder / shard["tar"]).read_bytes()).hexdigest() == shard["sha256"]


def test_the_three_ways_take_turns(folder: Path) -> None:
    windows = []
    ways, memory = measure_loader(ShardSet.open(folder), 4, 2, 20, lambda: windows.append(1))
    assert [way.name for way in ways] == ["ifvit", "ifvit without crc32", "plain webdataset"]
    assert [len(way.windows) for way in ways] == [2, 2, 2] and len(windows) == 6 and len(memory) == 2
    assert all(way.samples_per_second > 0 for way in ways)


def test_ratios_are_of_windows_beside_each_other() -> None:
    ours = Throughput("ours", iter([]), 1, 1, windows=[100.0, 300.0, 90.0])
    theirs = Throughput("theirs", iter([]), 1, 1, windows=[10.0, 100.0, 10.0])
    assert ours.ratio_to(theirs) == 9.0  # of 10, 3 and 9
    assert ours.samples_per_second == 100.0 and ours.spread == pytest.approx(2.1)
