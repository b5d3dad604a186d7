"""data_prep/shard_writer.py: what is on the disk at which moment, and what a done-mark says."""

import json
import os
import socket
from pathlib import Path

import pytest
import torch

from data_prep.array_task import ArrayTask
from data_prep.shards import make_shards
from ifvit.encoders.text_encoder import TextEncoder
from tests.drawn_coco import draw_coco, edit_annotations, tiny_recipe
from tests.shard_folders import contents


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reaches the disk, in order: "sync NAME" of the file that will be NAME, "replace NAME", "unlink NAME"."""
    calls: list[str] = []

    def recorded(what: str, name: str) -> None:
        final = name.rpartition("/")[2].split(".tmp")[0].removeprefix(".")
        if what != "unlink" or not name.rpartition("/")[2].startswith("."):
            calls.append(f"{what} {final}")

    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def recorded_fsync(descriptor: int) -> None:
        fsync(descriptor)
        recorded("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    def recorded_replace(source, target, **places) -> None:
        replace(source, target, **places)
        recorded("replace", str(target))

    def recorded_unlink(path, **places) -> None:
        unlink(path, **places)
        recorded("unlink", str(path))

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    monkeypatch.setattr(os, "unlink", recorded_unlink)
    return calls


def test_no_moment_has_a_file_without_what_it_speaks_of(drawn_coco: Path, own_shards: Path, calls: list[str]) -> None:
    (own_shards / "train" / "shard-000001.tar").write_bytes(b"cut")
    make_shards(tiny_recipe(drawn_coco, own_shards))
    names = (
        "shard-000001.tar", "shard-000001.index", "shard-000001.json",
        "null_prompt_embeds.npy", "samples.index", "index.json",
    )  # fmt: skip
    assert calls == [
        "unlink index.json",
        "unlink shard-000001.json",
        *(f"{what} {name}" for name in names for what in ("sync", "replace")),
    ]


def test_a_listing_is_there_when_its_rows_are(drawn_coco: Path, tmp_path: Path, calls: list[str]) -> None:
    make_shards(tiny_recipe(drawn_coco, tmp_path, "data.samples_per_shard=5"))
    names = ("shard-000000.jsonl", "shard-000001.jsonl", "listing.json")
    assert calls[:6] == [f"{what} {name}" for name in names for what in ("sync", "replace")]


def test_a_mark_speaks_of_the_bytes_that_its_process_wrote(
    drawn_coco: Path, made_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where locks do not reach other machines, one of those may put its own file into the same place."""
    replace = os.replace

    def replaced_by_another(source, target, **places) -> None:
        assert Path(source).name.endswith(f".tmp{os.getpid()}.{socket.gethostname()}")
        replace(source, target, **places)
        if Path(target).name == "shard-000001.tar":
            Path(target).write_bytes(b"another")

    monkeypatch.setattr(os, "replace", replaced_by_another)
    recipe = tiny_recipe(drawn_coco, tmp_path)
    assert make_shards(recipe) is None
    mark, expected = (json.loads((root / "train/shard-000001.json").read_bytes()) for root in (tmp_path, made_shards))
    assert (mark["size"], mark["sha256"]) == (expected["size"], expected["sha256"])
    monkeypatch.undo()
    make_shards(recipe)
    assert contents(tmp_path / "train") == contents(made_shards / "train")


def test_parts_of_this_machines_killed_processes_do_not_pile_up(drawn_coco: Path, own_shards: Path) -> None:
    folder = own_shards / "train"
    for name in ("shard-000001.json", "shard-000002.json"):
        (folder / name).unlink()
    parts = [folder / f".shard-000001.tar.tmp7.{host}" for host in (socket.gethostname(), "elsewhere")]
    for part in parts:
        part.write_bytes(b"part")
    assert make_shards(tiny_recipe(drawn_coco, own_shards), ArrayTask(1, 3)) is None
    assert [part.exists() for part in parts] == [False, True]


def test_captions_are_encoded_a_fixed_number_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco = draw_coco(tmp_path / "coco", num_images=2)
    captions = [
        {"id": 10**6 + number, "image_id": 7 + 3 * (number % 2), "caption": f"Cat {number}."} for number in range(196)
    ]
    edit_annotations(coco, lambda content: content["annotations"].extend(captions))
    encode = TextEncoder.encode
    sizes = []

    def recorded(self: TextEncoder, input_ids: torch.Tensor) -> torch.Tensor:
        sizes.append(len(input_ids))
        return encode(self, input_ids)

    monkeypatch.setattr(TextEncoder, "encode", recorded)
    index = make_shards(tiny_recipe(coco, tmp_path / "out"))
    assert index is not None and index["prompts"] == 199
    assert sizes == [128, 71, 1]  # the last one is the null embedding
