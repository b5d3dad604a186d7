"""ifvit/data/reader.py"""

import io
import json
import random
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ifvit.config.errors import UserError
from ifvit.data.reader import SampleReader
from ifvit.data.shard_set import ShardSet
from tests.stored_samples import num_open_files, stored_ids, stored_records


@pytest.fixture
def own_shards(shards_root: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shards_root / "train", tmp_path / "train")


def read_all(shard_set: ShardSet) -> None:
    for sample, prompts, *_ in stored_samples(shard_set):
        assert prompts, sample


def stored_samples(shard_set: ShardSet) -> Iterator[tuple[int, list[str], NDArray, list[NDArray]]]:
    """Of each sample: number, captions, moments, and the stored text of each caption."""
    text_shape = shard_set.shapes.prompt_embeds if shard_set.has_embeddings else (shard_set.shapes.num_text_tokens,)
    text = np.empty((1, *text_shape), np.float16 if shard_set.has_embeddings else np.uint16)
    moments = np.empty((1, *shard_set.shapes.moments), np.float16)
    with closing(SampleReader(shard_set)) as reader:
        for sample, record in enumerate(stored_records(shard_set)):
            texts = []
            for caption in range(record["num_prompts"]):
                reader.read(np.array([sample]), np.array([caption]), moments, text, np.array([0]))
                texts.append(text[0].copy())
            yield sample, reader.prompts(sample), moments[0].copy(), texts


def tar_members(folder: Path) -> dict[str, bytes]:
    members = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            members |= {member.name: tar.extractfile(member).read() for member in tar}
    return members


@pytest.mark.parametrize("kind", ["shard_set", "token_shard_set"])
def test_reads_what_tarfile_and_numpy_read(kind: str, request: pytest.FixtureRequest) -> None:
    shard_set = request.getfixturevalue(kind)
    members = tar_members(shard_set.folder)
    arrays = {name: np.load(io.BytesIO(content)) for name, content in members.items() if name.endswith(".npy")}
    ids = stored_ids(shard_set)
    for sample, prompts, moments, texts in stored_samples(shard_set):
        key = f"{ids[sample]:012d}"
        assert np.array_equal(moments, arrays[f"{key}.latents.npy"])
        assert prompts == json.loads(members[f"{key}.prompts.json"])
        assert len(texts) == len(prompts) == 1 + sample % 3
        for caption, text in enumerate(texts):
            if shard_set.has_embeddings:
                assert np.array_equal(text, arrays[f"{key}.prompt_embeds.{caption}.npy"])
            else:
                assert np.array_equal(text, arrays[f"{key}.input_ids.npy"][caption])
    assert sample == 9


@pytest.mark.fault(
    "F11",
    injected="random bit flips in what a training reads",
    detected="the sample's crc32: shard and sample are named",
    recovered="the shard is made again, the run goes on",
    lost="steps since the last checkpoint",
)
@pytest.mark.parametrize("storage", ["embeddings", "token_ids"])
def test_every_flipped_bit_that_is_read_is_found(
    storage: str, shards_root: Path, token_shard_set: ShardSet, tmp_path: Path
) -> None:
    source = shards_root / "train" if storage == "embeddings" else token_shard_set.folder
    own_shards = shutil.copytree(source, tmp_path / "train")
    tar_path = own_shards / "shard-000001.tar"
    original = tar_path.read_bytes()
    with tarfile.open(tar_path) as tar:
        unread = ".input_ids.npy" if storage == "embeddings" else "none"
        spans = [
            (member.offset_data, member.size, member.name) for member in tar.getmembers() if unread not in member.name
        ]
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


@pytest.mark.fault(
    "F10",
    injected="a shard cut while a training reads it",
    detected="an error names the shard and the sample",
    recovered="the shard is made again, the run goes on",
    lost="steps since the last checkpoint",
)
def test_a_shard_that_is_cut_after_opening_is_an_error(own_shards: Path) -> None:
    shard_set = ShardSet.open(own_shards)
    with (own_shards / "shard-000000.tar").open("r+b") as tar:
        tar.truncate(3000)
    with pytest.raises(UserError, match=r"shard-000000\.tar: is damaged: 0000000000\d\d\..*cut off"):
        read_all(shard_set)


@pytest.mark.parametrize(
    "kind, member", [("shard_set", "latents"), ("shard_set", "prompt_embeds"), ("token_shard_set", "input_ids")]
)
def test_an_array_of_another_type_is_refused(
    kind: str, member: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A pickled object array; the kind is looked at before the crc32."""
    folder = shutil.copytree(request.getfixturevalue(kind).folder, tmp_path / "train")
    shard_set = ShardSet.open(folder)
    tar_path = folder / "shard-000000.tar"
    content = bytearray(tar_path.read_bytes())
    with tarfile.open(tar_path) as tar:
        start = next(each.offset_data for each in tar if f".{member}" in each.name)
    kinds = content.index(b"'descr': '<", start)
    content[kinds : kinds + len(b"'descr': '<f2'")] = b"'descr': '|O '"
    tar_path.write_bytes(content)
    with pytest.raises(UserError, match=rf"\.{member}.*another kind of array"):
        read_all(shard_set)


def test_few_shards_are_open_at_once(shard_set: ShardSet) -> None:
    moments = np.empty((4, *shard_set.shapes.moments), np.float16)
    text = np.empty((4, *shard_set.shapes.prompt_embeds), np.float16)
    before = num_open_files()
    reader = SampleReader(shard_set, max_open_shards=1)
    reader.read(np.array([0, 9, 0, 5]), np.zeros(4, np.int64), moments, text, np.arange(4))
    assert list(reader.arrays.open_shards) == [1] and num_open_files() == before + 1
    reader.close()
    assert reader.arrays.open_shards == {} and num_open_files() == before


def test_without_crc32_damage_is_not_seen(own_shards: Path) -> None:
    """What benchmarks compare with."""
    shard_set = ShardSet.open(own_shards)
    tar_path = own_shards / "shard-000000.tar"
    content = bytearray(tar_path.read_bytes())
    content[512 + 128] ^= 1  # the first latent value
    tar_path.write_bytes(content)
    rows = np.array([0]), np.array([0])
    moments = np.empty((1, *shard_set.shapes.moments), np.float16)
    text = np.empty((1, *shard_set.shapes.prompt_embeds), np.float16)
    with closing(SampleReader(shard_set, checks_crc32=False)) as reader:
        reader.read(*rows, moments, text, np.array([0]))
    with closing(SampleReader(shard_set)) as reader, pytest.raises(UserError, match="its crc32 differs"):
        reader.read(*rows, moments, text, np.array([0]))
