"""ifvit/data/shard_set.py and shard_table.py"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from ifvit.config.errors import UserError
from ifvit.data.shard_set import ShardSet
from ifvit.encoders.text_encoder import TextEncoder


@pytest.fixture
def own_shards(shards_root: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shards_root / "train", tmp_path / "train")


def test_counts_and_identities(shard_set: ShardSet) -> None:
    assert shard_set.num_samples == 10
    assert shard_set.table.ids.tolist() == [7 + 3 * number for number in range(10)]
    assert shard_set.table.shards.tolist() == [0] * 4 + [1] * 4 + [2] * 2
    assert shard_set.table.num_prompts.tolist() == [1 + number % 3 for number in range(10)]
    assert shard_set.shapes.moments == (8, 4, 4)
    assert shard_set.shapes.prompt_embeds == (12, 64)
    assert shard_set.text_encoder_identity["random"]


def test_the_null_condition_is_the_encoding_of_the_empty_text(shard_set: ShardSet) -> None:
    expected = TextEncoder.load("random-clip-small", None, 12).encode_prompts([""])[0]
    assert shard_set.null_prompt_embeds.dtype == torch.float32
    assert torch.equal(shard_set.null_prompt_embeds, expected.half().float())
    assert shard_set.null_prompt_embeds.abs().mean() > 0.1


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.shards_root: .* holds no finished shards"):
        ShardSet.open(tmp_path)


def unlink(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-512])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name, damage, message",
    [
        ("shard-000001.tar", unlink, r"shard-000001\.tar: shard is missing"),
        ("shard-000001.tar", truncate, r"shard-000001\.tar: has \d+ bytes instead of \d+, so not all of its 4 samples"),
        ("shard-000001.tar", lambda path: path.write_bytes(b""), r"shard-000001\.tar: has 0 bytes"),
        ("shard-000001.index.safetensors", flip, r"index\.safetensors: is damaged"),
        ("shard-000001.index.safetensors", unlink, r"index\.safetensors: cannot be read"),
        ("null_prompt_embeds.npy", flip, r"null_prompt_embeds\.npy: is damaged"),
        ("index.json", lambda path: path.write_text("{"), r"index\.json: cannot be read"),
        ("index.json", lambda path: path.write_text("[]"), r"index\.json: has shard format None"),
    ],
)
def test_what_is_missing_or_damaged_is_named(own_shards: Path, name: str, damage, message: str) -> None:
    damage(own_shards / name)
    with pytest.raises(UserError, match=message):
        ShardSet.open(own_shards)


def test_a_shard_too_many_is_refused(own_shards: Path) -> None:
    shutil.copy(own_shards / "shard-000000.tar", own_shards / "shard-000003.tar")
    with pytest.raises(UserError, match=r"shard-000003\.tar: is not one of the shards"):
        ShardSet.open(own_shards)


def test_swapped_shards_are_found(own_shards: Path) -> None:
    first, second = own_shards / "shard-000000.index.safetensors", own_shards / "shard-000001.index.safetensors"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    with pytest.raises(UserError, match=r"shard-000000\.index\.safetensors: is damaged or of other shards"):
        ShardSet.open(own_shards)


def test_another_format_version_is_refused(own_shards: Path) -> None:
    index = json.loads((own_shards / "index.json").read_text())
    (own_shards / "index.json").write_text(json.dumps(index | {"format_version": 2}))
    with pytest.raises(UserError, match="has shard format 2, this program reads 1"):
        ShardSet.open(own_shards)
