"""ifvit/data/shard_set.py and sample_index.py"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ifvit.config.errors import UserError
from ifvit.data.shard_set import ShardSet
from ifvit.encoders.text_encoder import TextEncoder
from tests.stored_samples import stored_ids, stored_records


@pytest.fixture
def own_shards(shards_root: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shards_root / "train", tmp_path / "train")


def test_counts_and_identities(shard_set: ShardSet) -> None:
    assert shard_set.num_samples == 10
    assert stored_ids(shard_set) == [7 + 3 * number for number in range(10)]
    assert shard_set.samples.shards_of(np.arange(10)).tolist() == [0] * 4 + [1] * 4 + [2] * 2
    assert stored_records(shard_set)["num_prompts"].tolist() == [1 + number % 3 for number in range(10)]
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


def another_factor(path: Path) -> None:
    path.write_text(path.read_text().replace('"scaling_factor": ', '"scaling_factor": 1'))


@pytest.mark.fault(
    "F12",
    injected="a set with parts missing or damaged",
    detected="an error that names the file, before step 1",
    recovered="repair, or make the shards again",
    lost="nothing",
)
@pytest.mark.parametrize(
    "name, damage, message",
    [
        ("shard-000001.tar", unlink, r"shard-000001\.tar: shard is missing"),
        ("shard-000001.tar", truncate, r"shard-000001\.tar: has \d+ bytes instead of \d+, so not all of its 4 samples"),
        ("shard-000001.tar", lambda path: path.write_bytes(b""), r"shard-000001\.tar: has 0 bytes"),
        ("samples.index", flip, r"samples\.index: the part of shard 1 is damaged"),
        ("samples.index", unlink, r"samples\.index: cannot be read"),
        ("samples.index", truncate, r"samples\.index: has [\d,]+ bytes instead of [\d,]+"),
        ("null_prompt_embeds.npy", flip, r"null_prompt_embeds\.npy: is damaged"),
        ("index.json", lambda path: path.write_text("{"), r"index\.json: cannot be read"),
        ("index.json", lambda path: path.write_text("[" * 100_000), r"index\.json: cannot be read"),
        ("index.json", lambda path: path.write_text("[]"), r"index\.json: has shard format None"),
        ("index.json", another_factor, r"index\.json: is damaged or .*its content_sha256 differs"),
    ],
)
def test_what_is_missing_or_damaged_is_named(own_shards: Path, name: str, damage, message: str) -> None:
    damage(own_shards / name)
    with pytest.raises(UserError, match=message):
        stored_ids(ShardSet.open(own_shards))


@pytest.mark.fault(
    "F12",
    injected="a shard that is none of the set's",
    detected="an error that names it, before step 1",
    recovered="it is moved away",
    lost="nothing",
)
def test_a_shard_too_many_is_refused(own_shards: Path) -> None:
    shutil.copy(own_shards / "shard-000000.tar", own_shards / "shard-000003.tar")
    with pytest.raises(UserError, match=r"shard-000003\.tar: is not one of the shards"):
        ShardSet.open(own_shards)


def test_swapped_parts_of_the_index_are_found(own_shards: Path) -> None:
    parts = [own_shards / f"shard-{number:06d}.index" for number in (1, 0, 2)]
    (own_shards / "samples.index").write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(UserError, match=r"samples\.index: "):
        stored_ids(ShardSet.open(own_shards))


def test_another_format_version_is_refused(own_shards: Path) -> None:
    index = json.loads((own_shards / "index.json").read_text())
    (own_shards / "index.json").write_text(json.dumps(index | {"format_version": 3}))
    with pytest.raises(UserError, match="has shard format 3, this program reads 2"):
        ShardSet.open(own_shards)
