"""ifvit/data/loader.py, batch.py, online_text.py"""

import gc
import io
import itertools
import shutil
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ifvit.config.errors import UserError
from ifvit.data.batch import Batch
from ifvit.data.batch_stream import BatchStream
from ifvit.data.loader import BatchLoader
from ifvit.data.online_text import with_prompt_embeds
from ifvit.data.reader import SampleReader
from ifvit.data.shard_set import ShardSet
from ifvit.data.training_data import TrainingData
from ifvit.encoders.text_encoder import TextEncoder
from tests.stored_samples import num_open_files, stored_ids, stored_records

SEED, DROPOUT = 1234, 0.3


def batches(shard_set: ShardSet, count: int, global_batch_size: int = 8, **place: int) -> list[Batch]:
    with BatchLoader(TrainingData((shard_set,)), SEED, global_batch_size, DROPOUT, **place) as loader:
        return [copied(batch) for batch in itertools.islice(loader, count)]


def copied(batch: Batch) -> Batch:
    """As it is now: its memory is used again."""
    return Batch(**{name: None if value is None else value.clone() for name, value in vars(batch).items()})


def assert_equal(left: Batch, right: Batch) -> None:
    for name, value in vars(left).items():
        other = getattr(right, name)
        assert (value is None and other is None) or torch.equal(value, other), name


def stacked(parts: list[Batch]) -> Batch:
    columns = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
    return Batch(**{name: None if values[0] is None else torch.cat(values) for name, values in columns.items()})


@pytest.mark.fault(
    "F24",
    injected="an epoch's edge on one, two and four ranks",
    detected="-",
    recovered="the ranks' rows are the one rank's batch",
    lost="nothing",
)
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_ranks_rows_make_up_the_one_rank_s_batch(shard_set: ShardSet, world_size: int) -> None:
    whole = batches(shard_set, 5)
    parts = [batches(shard_set, 5, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in range(5):
        assert len(parts[0][step]) == 8 // world_size
        together = stacked([part[step] for part in parts])
        order = together.global_rows.argsort()
        assert_equal(
            Batch(**{name: value if value is None else value[order] for name, value in vars(together).items()}),
            whole[step],
        )


@pytest.mark.parametrize("first_step", [1, 7, 12])
def test_seeking_is_the_same_as_iterating(shard_set: ShardSet, first_step: int) -> None:
    from_start = batches(shard_set, first_step + 2)[first_step:]
    for left, right in zip(from_start, batches(shard_set, 2, first_step=first_step), strict=True):
        assert_equal(left, right)


def test_rows_do_not_depend_on_the_batch_size(shard_set: ShardSet) -> None:
    by_four, by_eight = stacked(batches(shard_set, 6, 4)), stacked(batches(shard_set, 3, 8))
    assert_equal(replace(by_four, global_rows=by_eight.global_rows), by_eight)
    assert by_four.global_rows.tolist() == [0, 1, 2, 3] * 6


@pytest.mark.fault(
    "F24",
    injected="batches that straddle epochs",
    detected="-",
    recovered="each sample exactly once per epoch",
    lost="nothing",
)
def test_each_sample_once_per_epoch_though_batches_straddle_epochs(shard_set: ShardSet) -> None:
    ids = stacked(batches(shard_set, 10, 4)).sample_ids.reshape(4, 10)  # 10 samples an epoch
    for epoch in ids:
        assert epoch.sort().values.tolist() == stored_ids(shard_set)
    assert not torch.equal(ids[0], ids[1])


def test_a_row_holds_one_of_its_own_image_s_captions(shard_set: ShardSet) -> None:
    stored = {}
    for path in shard_set.folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            stored |= {
                member.name: np.load(io.BytesIO(tar.extractfile(member).read()))
                for member in tar
                if ".npy" in member.name
            }
    records = {record["id"]: record["num_prompts"] for record in stored_records(shard_set)}
    seen = set()
    for batch in batches(shard_set, 30):
        for id_, moments, embeds in zip(batch.sample_ids.tolist(), batch.moments, batch.prompt_embeds, strict=True):
            assert np.array_equal(moments.numpy(), stored[f"{id_:012d}.latents.npy"])
            captions = [stored[f"{id_:012d}.prompt_embeds.{caption}.npy"] for caption in range(records[id_])]
            matches = [caption for caption, own in enumerate(captions) if np.array_equal(own, embeds.numpy())]
            assert matches
            seen.add((id_, matches[0]))
    assert len(seen) == sum(records.values())  # and in time every one of them


def test_a_batch_holds_until_the_next_is_asked_for(shard_set: ShardSet) -> None:
    expected = batches(shard_set, 20)
    with BatchLoader(TrainingData((shard_set,)), SEED, 8, DROPOUT) as loader:
        memory = set()
        for own in expected:
            batch = next(loader)
            time.sleep(0.01)  # the threads read on
            assert_equal(batch, own)
            memory.add(batch.moments.data_ptr())
    assert len(memory) <= 5  # and no more memory is taken than for a few batches


def test_a_stream_goes_on_at_another_batch_when_told(shard_set: ShardSet) -> None:
    num_threads = threading.active_count()

    def open_loader(number: int) -> BatchLoader:
        return BatchLoader(TrainingData((shard_set,)), SEED, 8, DROPOUT, first_step=number)

    with BatchStream(open_loader, lambda batch: batch.to("cpu"), first=1) as stream:
        taken = [copied(next(stream)) for _ in range(2)]
        stream.go_on_at(7)
        taken += [copied(next(stream)) for _ in range(2)]
    for batch, number in zip(taken, (1, 2, 7, 8), strict=True):
        assert_equal(batch, copied(batches(shard_set, 1, first_step=number)[0].to("cpu")))
    assert threading.active_count() <= num_threads


def test_dropped_rows_keep_their_caption(shard_set: ShardSet) -> None:
    with (
        BatchLoader(TrainingData((shard_set,)), SEED, 8, 1.0) as all_dropped,
        BatchLoader(TrainingData((shard_set,)), SEED, 8, 0.0) as none_dropped,
    ):
        left, right = next(all_dropped), next(none_dropped)
    assert left.is_dropped.all()
    assert not right.is_dropped.any()
    assert torch.equal(left.prompt_embeds, right.prompt_embeds)


def test_a_global_batch_that_the_ranks_cannot_share(shard_set: ShardSet) -> None:
    with pytest.raises(UserError, match=r"^train\.global_batch_size: is 8, must be divisible by the 3 ranks"):
        BatchLoader(TrainingData((shard_set,)), SEED, 8, DROPOUT, rank=0, world_size=3)


def test_damage_reaches_the_consumer_and_stays(shards_root: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shards_root / "train", tmp_path / "train")
    shard_set = ShardSet.open(folder)
    for number in range(3):
        tar = folder / f"shard-{number:06d}.tar"
        tar.write_bytes(bytes(tar.stat().st_size))
    with BatchLoader(TrainingData((shard_set,)), SEED, 4, DROPOUT) as loader:
        for _ in range(2):
            with pytest.raises(UserError, match="is damaged"):
                next(loader)


@pytest.mark.fault(
    "F13",
    injected="a reading thread of the loader dies",
    detected="its own error with its traceback at the next batch, no hang",
    recovered="the same command goes on",
    lost="steps since the last checkpoint",
)
def test_what_ends_a_reading_thread_is_raised_with_its_traceback(
    shard_set: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault F13."""

    def dies(*_: object) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(SampleReader, "read", dies)
    with BatchLoader(TrainingData((shard_set,)), SEED, 8, DROPOUT) as loader:
        for _ in range(2):
            with pytest.raises(MemoryError, match="no more") as raised:
                next(loader)
            assert {"read_rows", "dies"} <= {entry.name for entry in raised.traceback}


def test_close_ends_the_threads_also_when_nobody_takes_their_batches(shard_set: ShardSet) -> None:
    gc.collect()  # files of earlier tests
    before = set(threading.enumerate()), num_open_files()
    loader = BatchLoader(TrainingData((shard_set,)), SEED, 8, DROPOUT)
    next(loader)
    loader.close()
    assert (set(threading.enumerate()), num_open_files()) == before
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
