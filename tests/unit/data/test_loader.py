"""ifvit/data/loader.py, batch.py, online_text.py"""

import itertools
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from ifvit.config.errors import UserError
from ifvit.data.batch import Batch
from ifvit.data.loader import BatchLoader
from ifvit.data.online_text import with_prompt_embeds
from ifvit.data.reader import SampleReader
from ifvit.data.shard_set import ShardSet
from ifvit.encoders.text_encoder import TextEncoder

SEED, DROPOUT = 1234, 0.3


def batches(shard_set: ShardSet, count: int, global_batch_size: int = 8, **place: int) -> list[Batch]:
    with BatchLoader(shard_set, SEED, global_batch_size, DROPOUT, **place) as loader:
        return list(itertools.islice(loader, count))


def assert_equal(left: Batch, right: Batch) -> None:
    for name, value in vars(left).items():
        other = getattr(right, name)
        assert (value is None and other is None) or torch.equal(value, other), name


def stacked(parts: list[Batch]) -> Batch:
    columns = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
    return Batch(**{name: None if values[0] is None else torch.cat(values) for name, values in columns.items()})


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_ranks_rows_make_up_the_one_rank_s_batch(shard_set: ShardSet, world_size: int) -> None:
    whole = batches(shard_set, 5)
    parts = [batches(shard_set, 5, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in range(5):
        assert len(parts[0][step]) == 8 // world_size
        assert_equal(stacked([part[step] for part in parts]), whole[step])


@pytest.mark.parametrize("first_step", [1, 7, 12])
def test_seeking_is_the_same_as_iterating(shard_set: ShardSet, first_step: int) -> None:
    from_start = batches(shard_set, first_step + 2)[first_step:]
    for left, right in zip(from_start, batches(shard_set, 2, first_step=first_step), strict=True):
        assert_equal(left, right)


def test_rows_do_not_depend_on_the_batch_size(shard_set: ShardSet) -> None:
    assert_equal(stacked(batches(shard_set, 6, 4)), stacked(batches(shard_set, 3, 8)))


def test_each_sample_once_per_epoch_though_batches_straddle_epochs(shard_set: ShardSet) -> None:
    ids = stacked(batches(shard_set, 10, 4)).sample_ids.reshape(4, 10)  # 10 samples an epoch
    for epoch in ids:
        assert epoch.sort().values.tolist() == shard_set.table.ids.tolist()
    assert not torch.equal(ids[0], ids[1])


def test_a_row_holds_one_of_its_own_image_s_captions(shard_set: ShardSet) -> None:
    reader = SampleReader(shard_set)
    seen = set()
    for batch in batches(shard_set, 30):
        for row in range(8):
            sample = shard_set.table.ids.tolist().index(int(batch.sample_ids[row]))
            moments = np.empty(shard_set.shapes.moments, np.float16)
            reader.read_moments(sample, moments)
            assert np.array_equal(batch.moments[row].numpy(), moments)
            captions = np.empty((shard_set.table.num_prompts[sample], *shard_set.shapes.prompt_embeds), np.float16)
            for caption in range(len(captions)):
                reader.read_prompt_embeds(sample, caption, captions[caption])
            matches = [c for c in range(len(captions)) if np.array_equal(captions[c], batch.prompt_embeds[row].numpy())]
            assert matches
            seen.add((sample, matches[0]))
    assert len(seen) == shard_set.table.num_prompts.sum()  # and in time every one of them
    reader.close()


def test_dropped_rows_keep_their_caption(shard_set: ShardSet) -> None:
    with BatchLoader(shard_set, SEED, 8, 1.0) as all_dropped, BatchLoader(shard_set, SEED, 8, 0.0) as none_dropped:
        left, right = next(all_dropped), next(none_dropped)
    assert left.is_dropped.all()
    assert not right.is_dropped.any()
    assert torch.equal(left.prompt_embeds, right.prompt_embeds)


def test_a_global_batch_that_the_ranks_cannot_share(shard_set: ShardSet) -> None:
    with pytest.raises(UserError, match=r"^train\.global_batch_size: is 8, must be divisible by the 3 ranks"):
        BatchLoader(shard_set, SEED, 8, DROPOUT, rank=0, world_size=3)


def test_damage_reaches_the_consumer_and_stays(shards_root: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shards_root / "train", tmp_path / "train")
    shard_set = ShardSet.open(folder)
    for number in range(3):
        tar = folder / f"shard-{number:06d}.tar"
        tar.write_bytes(bytes(tar.stat().st_size))
    with BatchLoader(shard_set, SEED, 4, DROPOUT) as loader:
        for _ in range(2):
            with pytest.raises(UserError, match="is damaged"):
                next(loader)


def test_close_ends_the_thread_also_when_nobody_takes_its_batches(shard_set: ShardSet) -> None:
    loader = BatchLoader(shard_set, SEED, 8, DROPOUT)
    next(loader)
    loader.close()
    assert not loader.thread.is_alive()
    assert loader.thread not in threading.enumerate()
    assert list(loader) == []


def test_rows_and_device(shard_set: ShardSet) -> None:
    batch = batches(shard_set, 1)[0]
    assert batch.moments.dtype == batch.prompt_embeds.dtype == torch.float16
    moved = batch.to("cpu")
    assert moved.moments.dtype == moved.prompt_embeds.dtype == torch.float32
    assert len(moved.rows(2, 5)) == 3
    assert_equal(stacked([moved.rows(0, 2), moved.rows(2, 8)]), moved)
    assert moved.rows(2, 5).sample_ids.tolist() == batch.sample_ids[2:5].tolist()


def test_token_ids_give_the_same_batches_as_embeddings(shard_set: ShardSet, token_shard_set: ShardSet) -> None:
    text_encoder = TextEncoder.load("random-clip-small", None, 12)
    for stored, tokens in zip(batches(shard_set, 3), batches(token_shard_set, 3), strict=True):
        assert stored.input_ids is None
        assert tokens.prompt_embeds is None
        assert tokens.input_ids.dtype == torch.int64
        assert torch.equal(stored.sample_ids, tokens.sample_ids)
        assert torch.equal(stored.moments, tokens.moments)
        online = with_prompt_embeds(tokens.to("cpu"), text_encoder)
        torch.testing.assert_close(online.prompt_embeds, stored.prompt_embeds.float(), rtol=1e-3, atol=1e-3)
        assert with_prompt_embeds(stored, text_encoder) is stored
