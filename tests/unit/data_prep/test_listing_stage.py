"""data_prep/listing_stage.py and listing.py, on a folder of images."""

import os
import shutil
import time
from pathlib import Path

import pytest

from data_prep.folder_source import FolderSource
from data_prep.listing import Listing
from data_prep.listing_stage import current_listing, dry_listing
from ifvit.config.errors import UserError
from ifvit.data.sealed_json import sealed_json
from tests.shard_folders import contents


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.jpg").write_bytes(b"x" * number)
        (folder / f"{number}.txt").write_text(f"caption {number}\n" * (number % 3) + "\n\n" * (number == 4) + "end\n")
    (folder / "7.txt").unlink()
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "shards" / "train" / "listing"


def listing_of(images: Path, out: Path, samples_per_shard: int = 4) -> Listing:
    return current_listing(FolderSource(str(images)), samples_per_shard, out)


def test_every_sample_is_in_one_shard_in_order(images: Path, out: Path) -> None:
    listing = listing_of(images, out)
    assert [[sample.id for sample in listing.shard(number)] for number in range(3)] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9],
    ]  # fmt: skip
    assert (listing.num_samples, listing.num_shards, listing.shard_samples(2)) == (10, 3, 2)
    assert listing.content["prompt_counts"] == {"1": 4, "2": 2, "3": 3}
    assert listing.content["prompts"] == 4 + 4 + 9
    assert str(listing.faults) == "1 no captions (id 7, 7.jpg)"
    assert str(listing.dropped_captions) == "2 empty (id 4, 4.jpg)"
    assert listing.num_captions == 4 + 4 + 9 + 2


def test_a_second_process_reads_it(images: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = listing_of(images, out)
    monkeypatch.setattr(FolderSource, "samples", lambda self: pytest.fail("listed again"))
    assert listing_of(images, out) == first


def test_an_interrupted_listing_comes_out_the_same(images: Path, out: Path, tmp_path: Path, monkeypatch) -> None:
    samples = FolderSource.samples

    def interrupted(self: FolderSource):
        for sample in samples(self):
            if sample.id == 6:
                raise KeyboardInterrupt
            yield sample

    monkeypatch.setattr(FolderSource, "samples", interrupted)
    with pytest.raises(KeyboardInterrupt):
        listing_of(images, out)
    assert not (out / "listing.json").exists()
    monkeypatch.undo()
    listing_of(images, out)
    listing_of(images, tmp_path / "other")
    assert contents(out) == contents(tmp_path / "other")


def test_a_dry_run_writes_nothing(images: Path, out: Path) -> None:
    dry = dry_listing(FolderSource(str(images)), 4, out)
    assert not out.parent.exists()
    assert listing_of(images, out) == dry == dry_listing(FolderSource(str(images)), 4, out)


def finish(listing: Listing, number: int, samples_per_shard: int = 4) -> None:
    """What a finished shard leaves, as far as the listing looks at it."""
    folder = listing.folder.parent
    (folder / f"shard-{number:06d}.tar").write_bytes(b"")
    (folder / f"shard-{number:06d}.index").write_bytes(b"")
    mark = {
        "size": 0,
        "samples": 0,
        "prompts": 0,
        "listing_sha256": listing.shard_sha256(number),
        "settings": {"data.samples_per_shard": samples_per_shard, "data.text_storage": "token_ids"},
    }
    (folder / f"shard-{number:06d}.json").write_bytes(sealed_json(mark))


def test_without_shards_a_changed_source_is_listed_anew(images: Path, out: Path) -> None:
    listing_of(images, out)
    (images / "9.txt").write_text("another\n")
    for number in range(4):
        (images / f"{number}.jpg").unlink()
    listing = listing_of(images, out)
    assert listing.shard(1)[-1].prompts == ("another",)
    assert sorted(path.name for path in out.glob("*.jsonl")) == ["shard-000000.jsonl", "shard-000001.jsonl"]
    assert listing_of(images, out, 3).num_shards == 2


def test_a_source_that_only_looks_changed_keeps_its_shards(images: Path, out: Path, tmp_path: Path) -> None:
    before = listing_of(images, out)
    finish(before, 0)
    os.utime(images / "0.jpg", ns=(1, 1))
    after = listing_of(images, out)
    assert after.content["shards"] == before.content["shards"]
    assert after.content["fingerprint"] != before.content["fingerprint"]
    shutil.copytree(images, tmp_path / "moved")
    assert listing_of(tmp_path / "moved", out).content["shards"] == before.content["shards"]


def test_a_source_that_grows_at_its_end_keeps_its_whole_shards(images: Path, out: Path) -> None:
    before = listing_of(images, out)
    finish(before, 0)
    finish(before, 1)
    (images / "z.jpg").write_bytes(b"")
    assert [len(listing_of(images, out).shard(number)) for number in range(3)] == [4, 4, 3]


def test_shards_with_other_samples_are_named_and_their_listing_stays(images: Path, out: Path) -> None:
    listing = listing_of(images, out)
    finish(listing, 1)
    finish(listing, 2)
    before = contents(out)
    (images / "9.txt").write_text("another\n")
    with pytest.raises(
        UserError,
        match=r"^data\.image_folder: 1 of the 2 shards in .* other images or captions .*\(shard-000002\.json\)",
    ):
        listing_of(images, out)
    with pytest.raises(UserError, match=r"^data\.samples_per_shard: is 5, but .* was made with 4"):
        listing_of(images, out, 5)
    assert contents(out) == before
    (out.parent / "shard-000002.tar").unlink()
    assert listing_of(images, out).shard(2)[-1].prompts == ("another",)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:-1]), Path.unlink])
def test_a_damaged_listing_is_named(images: Path, out: Path, damage) -> None:
    listing = listing_of(images, out)
    damage(out / "shard-000001.jsonl")
    with pytest.raises(UserError, match=r"shard-000001\.jsonl: .*delete .*listing\.json and run the same command"):
        listing.shard(1)
    (out / "listing.json").unlink()
    assert len(listing_of(images, out).shard(1)) == 4


@pytest.mark.fault(
    "F24",
    injected="an empty data set",
    detected="an error names the field and the folder",
    recovered="-",
    lost="nothing",
)
def test_an_empty_source_is_an_error(tmp_path: Path, out: Path) -> None:
    """Fault F24: an empty data set."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"^data\.image_folder: .*empty has no images"):
        listing_of(tmp_path / "empty", out)
    assert not (out / "listing.json").exists()


def test_processes_that_ask_at_once_get_one_listing(images: Path, out: Path, tmp_path: Path, monkeypatch) -> None:
    samples = FolderSource.samples

    def slow(self: FolderSource):
        with (tmp_path / "log").open("a") as log:
            log.write("listed\n")
        for sample in samples(self):
            time.sleep(0.02)
            yield sample

    monkeypatch.setattr(FolderSource, "samples", slow)
    children = []
    for number in range(4):
        if (child := os.fork()) == 0:
            try:
                (tmp_path / f"result{number}").write_bytes(sealed_json(listing_of(images, out).content))
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    assert {(tmp_path / f"result{number}").read_bytes() for number in range(4)} == {(out / "listing.json").read_bytes()}
    assert (tmp_path / "log").read_text() == "listed\n"
