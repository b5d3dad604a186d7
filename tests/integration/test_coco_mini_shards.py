"""All 1,922 real COCO images of the test data through all stages, by processes that are killed at random moments."""

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from data_prep.main import main as data_prep
from data_prep.shards import make_shards
from ifvit.config.loading import load_recipe
from ifvit.config.schema import Recipe
from ifvit.data.loader import BatchLoader
from ifvit.data.shard_set import ShardSet
from ifvit.data.training_data import TrainingData
from tests.forked_process import exit_code, forked
from tests.shard_folders import contents
from tests.stored_samples import stored_ids

NUM_IMAGES = {"train": 589, "val": 100, "extra": 1233}
NUM_KILLS, BATCH = 8, 64


def recipe_for(split: str, test_data: Path, repository: Path, root: Path) -> Recipe:
    overrides = {
        "data.coco_root": test_data / "coco_mini",
        "data.split": split,
        "data.shards_root": root,
        "data.samples_per_shard": 20,
        "data.text_storage": "token_ids",
        "encoders.autoencoder": test_data / "vae_f8c4",
        "encoders.tokenizer": test_data / "clip_tokenizer",
    }
    return load_recipe(repository / "recipes/coco_mini.yaml", [f"{name}={value}" for name, value in overrides.items()])


@pytest.mark.coco
@pytest.mark.parametrize("split", NUM_IMAGES)
def test_nothing_is_lost_or_doubled(split: str, test_data: Path, repository: Path, tmp_path: Path) -> None:
    recipe = recipe_for(split, test_data, repository, tmp_path)
    folder = tmp_path / split
    generator = random.Random(split)
    numbers = []
    for _ in range(NUM_KILLS):
        process = forked(lambda: make_shards(recipe))
        time.sleep(generator.uniform(0.1, 4.0))
        os.kill(process, signal.SIGKILL)
        exit_code(process)
        numbers.append(len(list(folder.glob("shard-*.json"))))
    assert numbers == sorted(numbers)
    make_shards(recipe)

    annotations = json.loads((test_data / f"coco_mini/annotations/captions_{split}2014.json").read_text())
    expected = sorted(image["id"] for image in annotations["images"])
    assert len(expected) == NUM_IMAGES[split]
    shard_set = ShardSet.open(folder)
    assert stored_ids(shard_set) == expected
    assert not [path for path in folder.rglob(".*") if "partial" in path.name or "tmp" in path.name]

    assert data_prep(["verify", str(folder), "--no-page"]) == 0

    first = contents(folder)
    victim = generator.choice(sorted(folder.glob("shard-*.tar")))
    victim.unlink()
    make_shards(recipe)
    assert contents(folder) == first

    with BatchLoader(TrainingData((shard_set,)), 0, BATCH, 0.1) as loader:
        seen: Counter[int] = Counter()
        for _ in range(3 * len(expected) // BATCH):
            seen.update(next(loader).sample_ids.tolist())
    assert set(seen) == set(expected) and set(seen.values()) <= {2, 3}
