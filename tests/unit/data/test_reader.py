"""ifvit/data/reader.py"""

import io
import random
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ifvit.config.errors import UserError
from ifvit.data import reader as reader_module
from ifvit.data.reader import SampleReader
from ifvit.data.shard_set import ShardSet


@pytest.fixture
def own_shards(shards_root: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shards_root / "train", tmp_path / "train")


def read_all(shard_set: ShardSet) -> None:
    reader = SampleReader(shard_set)
    moments = np.empty(shard_set.shapes.moments, np.float16)
    embeds = np.empty(shard_set.shapes.prompt_embeds, np.float16)
    try:
        for sample in range(shard_set.num_samples):
            reader.read_moments(sample, moments)
            reader.read_input_ids(sample)
            for caption in range(shard_set.table.num_prompts[sample]):
                reader.read_prompt_embeds(sample, caption, embeds)
            reader.read_prompts(sample)
    finally:
        reader.close()


def test_reads_what_tarfile_and_numpy_read(shard_set: ShardSet) -> None:
    reader = SampleReader(shard_set)
    sample = 0
    for tar_path in sorted(shard_set.folder.glob("*.tar")):
        with tarfile.open(tar_path) as tar:
            for name in [name for name in tar.getnames() if name.endswith("latents.npy")]:
                key = name.split(".")[0]
                members = {
                    member.name.split(".", 1)[1]: io.BytesIO(tar.extractfile(member).read())
                    for member in tar.getmembers()
                    if member.name.startswith(key)
                }
                assert shard_set.table.ids[sample] == int(key)
                moments = np.empty(shard_set.shapes.moments, np.float16)
                reader.read_moments(sample, moments)
                assert np.array_equal(moments, np.load(members["latents.npy"]))
                assert np.array_equal(reader.read_input_ids(sample), np.load(members["input_ids.npy"]))
                for caption in range(shard_set.table.num_prompts[sample]):
                    embeds = np.empty(shard_set.shapes.prompt_embeds, np.float16)
                    reader.read_prompt_embeds(sample, caption, embeds)
                    assert np.array_equal(embeds, np.load(members[f"prompt_embeds.{caption}.npy"]))
                sample += 1
    assert sample == shard_set.num_samples == 10
    reader.close()


def test_every_flipped_bit_in_a_payload_is_found(own_shards: Path) -> None:
    tar_path = own_shards / "shard-000001.tar"
    original = tar_path.read_bytes()
    with tarfile.open(tar_path) as tar:
        spans = [(member.offset_data, member.size, member.name) for member in tar.getmembers()]
    chance = random.Random(0)
    for _ in range(25):
        offset, size, name = chance.choice(spans)
        damaged = bytearray(original)
        damaged[offset + chance.randrange(size)] ^= 1 << chance.randrange(8)
        tar_path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"shard-000001\.tar: is damaged: {name}: .*delete the shard and run"):
            read_all(ShardSet.open(own_shards))
    tar_path.write_bytes(original)
    read_all(ShardSet.open(own_shards))


def test_a_shard_that_is_cut_after_opening_is_an_error(own_shards: Path) -> None:
    shard_set = ShardSet.open(own_shards)
    with (own_shards / "shard-000000.tar").open("r+b") as tar:
        tar.truncate(3000)
    with pytest.raises(UserError, match=r"shard-000000\.tar: is damaged: 0000000000\d\d\..*cut off"):
        read_all(shard_set)


def test_an_array_of_another_type_is_refused(own_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickled object array, with a crc32 that fits."""
    shard_set = ShardSet.open(own_shards)
    tar_path = own_shards / "shard-000000.tar"
    content = tar_path.read_bytes().replace(b"'descr': '<f2'", b"'descr': '|O '")
    tar_path.write_bytes(content)
    reader = SampleReader(shard_set)
    monkeypatch.setattr(reader_module.zlib, "crc32", lambda *_: shard_set.table.member_crc32[0])
    with pytest.raises(UserError, match="another kind of array"):
        reader.read_moments(0, np.empty(shard_set.shapes.moments, np.float16))
    reader.close()


def test_few_shards_are_open_at_once(shard_set: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "MAX_OPEN_SHARDS", 1)
    reader = SampleReader(shard_set)
    for sample in (0, 9, 0, 5):
        reader.read_input_ids(sample)
        assert list(reader.open_shards) == [shard_set.table.shards[sample]]
    reader.close()
    assert reader.open_shards == {}


def test_prompts_are_the_captions_in_annotation_order(shard_set: ShardSet) -> None:
    reader = SampleReader(shard_set)
    assert [len(reader.read_prompts(sample)) for sample in range(10)] == [1 + sample % 3 for sample in range(10)]
    reader.close()
