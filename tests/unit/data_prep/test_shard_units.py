"""data_prep/shard_units.py: what one process of a job counts, takes again, and says when it cannot go on."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch

from data_prep import shard_units
from data_prep.array_task import ArrayTask
from data_prep.folder_lock import Claims
from data_prep.listing import found_listing
from data_prep.shard_job import ShardJob
from data_prep.shard_units import ShardWorker
from data_prep.shard_writer import ShardWriter
from data_prep.shards import make_shards
from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.data.shard_set import ShardSet
from ifvit.runtime.distributed import Ranks
from tests.drawn_coco import tiny_recipe


def worker_for(recipe: Recipe, folder: Path, number: int = 0) -> ShardWorker:
    listing = found_listing(folder / "listing")
    assert listing is not None
    return ShardWorker(ShardJob(recipe, listing, ArrayTask()), lambda kind, count: None, number)


def test_what_finished_shards_leave_out_counts_before_another_is_made(drawn_coco: Path, tmp_path: Path) -> None:
    coco = shutil.copytree(drawn_coco, tmp_path / "coco")
    for number in (0, 4):
        (coco / "train2014" / f"COCO_train2014_{7 + 3 * number:012d}.jpg").write_text("no image")
    recipe = tiny_recipe(coco, tmp_path / "out", "data.max_bad_share=0.1")
    assert make_shards(recipe, ArrayTask(0, 3)) is None
    message = r"2 not an image \(ids 7, 19; .*\); image 19: .* and delete shard-000000\.json, or allow"
    with pytest.raises(UserError, match=message):
        make_shards(recipe)
    assert [path.name for path in (tmp_path / "out" / "train").glob("*.json")] == ["shard-000000.json"]


def test_a_shard_that_another_process_gave_up_is_made_in_the_end(
    drawn_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, asked = Claims.take, []

    def taken(self: Claims, unit: int) -> bool:
        asked.append(unit)
        return asked != [0] and take(self, unit)  # at first another process makes shard 0

    monkeypatch.setattr(Claims, "take", taken)
    assert make_shards(tiny_recipe(drawn_coco, tmp_path)) is not None
    assert asked == [0, 1, 2, 0]
    assert ShardSet.open(tmp_path / "train").num_samples == 10


def test_workers_share_the_gpus(drawn_coco: Path, made_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def device(ranks: Ranks) -> torch.device:
        seen.append(ranks.local_rank)
        return torch.device("cpu")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(shard_units, "training_device", device)
    for number in range(4):
        worker_for(tiny_recipe(drawn_coco, made_shards), made_shards / "train", number)
    assert seen == [0, 1, 0, 1]


def test_progress_begins_with_what_is_there(
    drawn_coco: Path, own_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_shards / "train" / "shard-000000.tar").unlink()
    make_shards(tiny_recipe(drawn_coco, own_shards))
    assert "shards: 10/10 images" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 5.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_too_little_memory_is_one_line(
    drawn_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(ShardWriter, "encoded", failing)
    with pytest.raises(UserError, match=r"^data\.encode_batch_size: is 3, for which there is too little memory"):
        make_shards(tiny_recipe(drawn_coco, tmp_path))


def test_other_errors_of_torch_are_ours(drawn_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShardWriter, "encoded", lambda *arguments: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        make_shards(tiny_recipe(drawn_coco, tmp_path))


@pytest.mark.parametrize("name", ["shard-000000.jsonl", "shard-000000.tar", "samples.index", "index.json"])
def test_a_full_disk_is_one_line(drawn_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if f"/.{name}.tmp" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=rf"^{tmp_path}/train: No space left on device; the same command goes on"):
        make_shards(tiny_recipe(drawn_coco, tmp_path))
    monkeypatch.undo()
    assert make_shards(tiny_recipe(drawn_coco, tmp_path)) is not None


def test_a_mark_that_is_a_folder_is_named_also_by_a_worker_of_several(drawn_coco: Path, own_shards: Path) -> None:
    recipe, mark = tiny_recipe(drawn_coco, own_shards), own_shards / "train" / "shard-000001.json"
    mark.unlink()
    mark.mkdir()
    worker = worker_for(recipe, own_shards / "train")
    for start in (lambda: make_shards(recipe), worker.run):
        with pytest.raises(UserError, match=rf"^{mark}: Is a directory; "):
            start()
