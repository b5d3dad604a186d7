"""Which samples of a held-out split are read, and what is said where it is not there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.shards import make_shards
from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.data.reader import SampleReader
from ifvit.data.validation_set import ValidationSet, open_validation_set
from tests.drawn_coco import draw_coco, tiny_recipe


@pytest.fixture(scope="module", params=["embeddings", "token_ids"])
def recipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Ten images in the split held_out, in shards of four."""
    coco = draw_coco(tmp_path_factory.mktemp("coco"), "held_out", num_images=10)
    stored = f"data.text_storage={request.param}"
    root = tmp_path_factory.mktemp("shards")
    make_shards(tiny_recipe(coco, root, "data.split=held_out", stored))
    return tiny_recipe(coco, root, "data.validation_split=held_out", stored)


def opened(recipe: Recipe, num_samples: int) -> ValidationSet:
    samples = open_validation_set(recipe.data, num_samples)
    assert samples is not None
    return samples


def test_samples_are_spread_over_the_split(recipe: Recipe) -> None:
    assert opened(recipe, 4).places.tolist() == [0, 2, 5, 7]
    assert opened(recipe, 1000).places.tolist() == list(range(10))


def test_rows_are_the_samples_with_their_first_captions(recipe: Recipe) -> None:
    samples = opened(recipe, 5)
    reader = SampleReader(samples.shard_set)
    batch = samples.read(reader, np.array([1, 3]))
    assert batch.sample_ids.tolist() == [7 + 3 * 2, 7 + 3 * 6]
    assert not batch.is_dropped.any()
    assert (batch.prompt_embeds is None) != (batch.input_ids is None)
    other = samples.read(reader, np.array([3]))
    assert torch.equal(batch.moments[1:], other.moments)
    text, other_text = (each.prompt_embeds if each.input_ids is None else each.input_ids for each in (batch, other))
    assert text is not None and other_text is not None
    assert torch.equal(text[1:], other_text)
    assert not torch.equal(text[:1], other_text)


def test_missing_shards_are_named_with_the_command_that_makes_them(recipe: Recipe) -> None:
    other = recipe.data.model_copy(update={"validation_split": "elsewhere"})
    with pytest.raises(UserError, match=r"data\.validation_split: .*elsewhere holds no finished shards") as error:
        open_validation_set(other, 4)
    assert "python -m data_prep shards RECIPE --split elsewhere" in str(error.value)


def test_no_split_is_off(recipe: Recipe) -> None:
    assert open_validation_set(recipe.data.model_copy(update={"validation_split": None}), 4) is None


def test_shards_of_other_values_are_refused_but_for_the_scale(recipe: Recipe) -> None:
    samples = opened(recipe, 4)
    samples.check(recipe)
    scaled = recipe.encoders.model_copy(update={"scaling_factor": 3.0})
    samples.check(recipe.model_copy(update={"encoders": scaled}))
    larger = recipe.model.model_copy(update={"sample_size": 8})
    with pytest.raises(UserError, match=r"model\.sample_size: is 8"):
        samples.check(recipe.model_copy(update={"model": larger}))


def test_a_renamed_split_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "renamed").symlink_to(Path(str(recipe.data.shards_root)) / "held_out")
    data = recipe.data.model_copy(update={"validation_split": "renamed", "shards_root": str(tmp_path)})
    renamed = recipe.model_copy(update={"data": data})
    with pytest.raises(UserError, match=r"data\.validation_split: is renamed, but the shards .* with held_out"):
        opened(renamed, 4).check(renamed)


@pytest.mark.parametrize(
    "elsewhere",
    [
        ["data.shards_root=https://host/shards", "data.cache_dir=cache"],
        ["data.shards_root=null", "data.mixture.a={shards_root: a, weight: 1}"],
    ],
)
def test_both_splits_lie_in_one_folder(elsewhere: list[str]) -> None:
    with pytest.raises(UserError, match=r"data\.validation_split: needs data\.shards_root to be a folder"):
        tiny_recipe(Path("/nowhere"), Path("/nowhere"), *elsewhere, "data.validation_split=held_out")
