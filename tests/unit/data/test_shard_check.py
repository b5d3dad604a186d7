"""ifvit/data/shard_check.py"""

from pathlib import Path

import pytest

from ifvit.config.errors import UserError
from ifvit.data.shard_check import check_shards
from ifvit.data.shard_set import ShardSet
from tests.drawn_coco import tiny_recipe


def test_the_recipe_that_made_the_shards_fits(shard_set: ShardSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, tmp_path)
    check_shards(recipe, shard_set, shard_set.autoencoder_identity, shard_set.text_encoder_identity)


@pytest.mark.parametrize(
    "override, line",
    [
        ("data.split=val", r"data\.split: is val, .* made with train"),
        ("data.text_storage=token_ids", r"data\.text_storage: is token_ids, .* made with embeddings"),
        ("model.sample_size=8", r"model\.sample_size: is 8, .* made with 4"),
        ("model.in_channels=16", r"model\.in_channels: is 16, .* made with 4"),
        ("model.num_text_tokens=77", r"model\.num_text_tokens: is 77, .* made with 12"),
        ("model.text_hidden_size=768", r"model\.text_hidden_size: is 768, .* made with 64"),
        ("encoders.scaling_factor=0.18215", r"encoders\.scaling_factor: is 0\.18215, .* made with"),
    ],
)
def test_a_difference_is_named(shard_set: ShardSet, tmp_path: Path, override: str, line: str) -> None:
    with pytest.raises(UserError, match=f"^{line}"):
        check_shards(tiny_recipe(tmp_path, tmp_path, override), shard_set)


def test_all_differences_are_named_at_once(shard_set: ShardSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, tmp_path, "model.sample_size=8", "model.text_hidden_size=768")
    with pytest.raises(UserError) as caught:
        check_shards(recipe, shard_set)
    assert len(caught.value.lines) == 2


def test_another_encoder_is_refused(shard_set: ShardSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, tmp_path)
    autoencoder = shard_set.autoencoder_identity | {"sha256": "0" * 64}
    with pytest.raises(UserError, match=r"^encoders\.autoencoder: .* other content \(sha256 000000000000\)"):
        check_shards(recipe, shard_set, autoencoder, shard_set.text_encoder_identity)
    for digest, field in (("sha256", "text_encoder"), ("tokenizer_sha256", "tokenizer")):
        text_encoder = shard_set.text_encoder_identity | {digest: "0" * 64}
        with pytest.raises(UserError, match=rf"^encoders\.{field}: "):
            check_shards(recipe, shard_set, shard_set.autoencoder_identity, text_encoder)
