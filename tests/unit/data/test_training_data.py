"""ifvit/data/training_data.py, and the loader on several sets"""

import itertools
from collections import Counter
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep.shards import make_shards
from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.data.loader import BatchLoader
from ifvit.data.shard_set import ShardSet
from ifvit.data.training_data import TrainingData, open_training_data
from tests.drawn_coco import draw_coco, draw_image, tiny_recipe
from tests.stored_samples import stored_ids


@pytest.fixture(scope="module")
def other_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 6 other images, with a scaling factor of its own."""
    root = tmp_path_factory.mktemp("other")
    coco = draw_coco(root / "coco", "val", num_images=6)
    for number, image in enumerate(sorted((coco / "val2014").iterdir())):
        draw_image(image, 100 + number)
    make_shards(tiny_recipe(coco, root / "shards", "data.split=val"))
    return root / "shards"


def mixed(shards_root: Path, other_root: Path, *overrides: str) -> Recipe:
    return tiny_recipe(
        Path("unused"),
        Path("unused"),
        "data.shards_root=null",
        f"data.mixture.b_train.shards_root={shards_root}",
        "data.mixture.b_train.weight=3",
        f"data.mixture.a_val.shards_root={other_root}",
        "data.mixture.a_val.split=val",
        "data.mixture.a_val.weight=1",
        *overrides,
    )


def rows(data: TrainingData, num_steps: int, **place: Any) -> list[list[tuple[int, bytes]]]:
    with BatchLoader(data, 7, 8, 0.1, **place) as loader:
        return [
            list(zip(batch.sample_ids.tolist(), [row.numpy().tobytes() for row in batch.moments], strict=True))
            for batch in itertools.islice(loader, num_steps)
        ]


def test_each_set_has_its_share_and_its_own_epochs(shards_root: Path, other_root: Path) -> None:
    data = open_training_data(mixed(shards_root, other_root).data)
    assert [shard_set.split for shard_set in data.sets] == ["val", "train"]  # by name, however the recipe is written
    counts = Counter(row for step in rows(data, 300) for row in step)
    val_ids, train_ids = (stored_ids(shard_set) for shard_set in data.sets)
    assert len(counts) == len(val_ids) + len(train_ids) == 16  # equal ids in two sets are two samples
    for shard_set, share in zip(data.sets, (0.25, 0.75), strict=True):
        own = [counts[row] for row in rows_of(shard_set)]
        assert sum(own) / counts.total() == pytest.approx(share, abs=0.03)
        assert max(own) - min(own) <= 1  # all but the last epoch are whole


def rows_of(shard_set: ShardSet) -> list[tuple[int, bytes]]:
    data = TrainingData((shard_set,))
    return list(dict.fromkeys(row for step in rows(data, 3) for row in step))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_a_mixed_batch_and_a_seek_finds_it(shards_root: Path, other_root: Path, world_size: int) -> None:
    data = open_training_data(mixed(shards_root, other_root).data)
    whole = rows(data, 6)
    parts = [rows(data, 6, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [[part[step][row] for row in range(8 // world_size) for part in parts] for step in range(6)] == whole
    assert rows(data, 2, first_step=4) == whole[4:]


def test_two_scales_need_a_choice(shards_root: Path, other_root: Path) -> None:
    data = open_training_data(mixed(shards_root, other_root).data)
    with pytest.raises(UserError, match=r"^encoders\.scaling_factor: the sets of data\.mixture have .*, .*; give"):
        data.scaling_factor(None)
    recipe = mixed(shards_root, other_root, "encoders.scaling_factor=0.5")
    data.check(recipe, data.sets[0].autoencoder_identity, data.sets[0].text_encoder_identity)
    assert data.scaling_factor(recipe.encoders.scaling_factor) == 0.5


def test_each_set_must_fit_the_recipe(shards_root: Path, other_root: Path) -> None:
    recipe = mixed(shards_root, other_root, "data.mixture.a_val.split=train", "data.text_storage=token_ids")
    data = open_training_data(mixed(shards_root, other_root).data)
    with pytest.raises(UserError) as error:
        data.check(recipe)
    assert [line.split(":")[0] for line in error.value.lines] == ["data.mixture.a_val.split", "data.text_storage"]


def test_the_digest_of_one_set_is_its_own(shard_set: ShardSet, shards_root: Path, other_root: Path) -> None:
    assert TrainingData((shard_set,)).digest == shard_set.digest
    both = open_training_data(mixed(shards_root, other_root).data)
    assert both.digest not in {each.digest for each in both.sets}
    assert torch.equal(both.null_prompt_embeds, shard_set.null_prompt_embeds)


def test_scales_that_hardly_differ_are_one(shard_set: ShardSet) -> None:
    """As of two parts of the same images."""

    def scaled(factor: float) -> ShardSet:
        other = copy(shard_set)
        other.scaling_factor = shard_set.scaling_factor * factor
        return other

    assert TrainingData((shard_set, scaled(1.0005)), (1.0, 1.0)).scaling_factor(None) == shard_set.scaling_factor
    with pytest.raises(UserError, match=r"^encoders\.scaling_factor: "):
        TrainingData((shard_set, scaled(1.002)), (1.0, 1.0)).scaling_factor(None)
