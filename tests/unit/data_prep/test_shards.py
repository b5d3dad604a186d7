"""data_prep/shards.py started again: what is there stays, what is missing comes back, what is other is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import webdataset

from data_prep.array_task import ArrayTask
from data_prep.folder_lock import Claims
from data_prep.listing import found_listing
from data_prep.shard_job import ShardJob
from data_prep.shard_units import ShardWorker
from data_prep.shard_writer import ShardWriter
from data_prep.shards import make_shards
from ifvit.config.errors import UserError
from ifvit.data.shard_set import ShardSet
from tests.drawn_coco import edit_annotations, tiny_recipe
from tests.other_autoencoder import other_autoencoder
from tests.shard_folders import contents


@pytest.fixture
def own_coco(drawn_coco: Path, tmp_path: Path) -> Path:
    return shutil.copytree(drawn_coco, tmp_path / "coco")


def samples_of(folder: Path) -> list[dict]:
    tars = [str(path) for path in sorted(folder.glob("*.tar"))]
    return list(webdataset.WebDataset(tars, shardshuffle=False).decode())


def test_two_runs_are_byte_identical(drawn_coco: Path, made_shards: Path, tmp_path: Path) -> None:
    make_shards(tiny_recipe(drawn_coco, tmp_path))
    assert contents(tmp_path / "train") == contents(made_shards / "train")


def test_a_second_start_skips_what_is_finished(
    drawn_coco: Path, own_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (own_shards / "train").glob("shard-*")}
    assert len(before) == 9
    monkeypatch.setattr(ShardWriter, "encoded", lambda *_: pytest.fail("encoded again"))
    make_shards(tiny_recipe(drawn_coco, own_shards))
    assert {
        path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (own_shards / "train").glob("shard-*")
    } == before


def test_a_shard_that_another_process_has_just_finished_is_left_alone(
    drawn_coco: Path, own_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = found_listing(own_shards / "train" / "listing")
    assert listing is not None
    worker = ShardWorker(ShardJob(tiny_recipe(drawn_coco, own_shards), listing, ArrayTask()), lambda kind, count: None)
    monkeypatch.setattr(ShardWriter, "encoded", lambda *_: pytest.fail("encoded again"))
    with Claims(own_shards / "claims") as claims:
        assert worker.make(1, claims)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10240])


@pytest.mark.parametrize(
    "name, damage",
    [
        ("shard-000001.tar", Path.unlink),
        ("shard-000001.tar", truncate),
        ("shard-000001.json", Path.unlink),
        ("shard-000001.index", Path.unlink),
        ("shard-000001.index", truncate),
        ("index.json", Path.unlink),
        ("null_prompt_embeds.npy", truncate),
    ],
)
def test_what_is_missing_comes_back_byte_identical(
    drawn_coco: Path, made_shards: Path, own_shards: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(own_shards / "train" / name)
    others = [path for path in (own_shards / "train").glob("*.tar") if path.name != "shard-000001.tar"]
    before = [path.stat().st_ino for path in others]
    make_shards(tiny_recipe(drawn_coco, own_shards))
    assert contents(own_shards / "train") == contents(made_shards / "train")
    assert [path.stat().st_ino for path in others] == before


def test_a_start_after_an_interruption_goes_on(
    drawn_coco: Path, made_shards: Path, tmp_path: Path, monkeypatch
) -> None:
    encoded = ShardWriter.encoded

    def interrupted(self: ShardWriter, images, pixels):
        if images[0].id == 19 + 3 * 3:  # in the second batch of the second shard
            raise KeyboardInterrupt
        return encoded(self, images, pixels)

    monkeypatch.setattr(ShardWriter, "encoded", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_shards(tiny_recipe(drawn_coco, tmp_path))
    names = {path.name for path in (tmp_path / "train").glob("[!.]*")}
    assert names == {"listing", "shard-000000.tar", "shard-000000.json", "shard-000000.index"}
    with pytest.raises(UserError, match="holds no finished shards"):
        ShardSet.open(tmp_path / "train")
    monkeypatch.undo()
    make_shards(tiny_recipe(drawn_coco, tmp_path))
    assert contents(tmp_path / "train") == contents(made_shards / "train")


LEFTOVERS = (
    ".shard-000001.tar.tmp7.elsewhere",
    ".shard-000001.json.tmp7",
    ".index.json.tmp7",
    "listing/.shard-000001.tmp7",
)


def test_what_killed_writers_left_is_removed_once_all_shards_are_there(
    drawn_coco: Path, made_shards: Path, own_shards: Path
) -> None:
    for name in LEFTOVERS:
        (own_shards / "train" / name).write_bytes(b"part")
    for number in (0, 1):
        (own_shards / "train" / f"shard-{number:06d}.json").unlink()
    assert make_shards(tiny_recipe(drawn_coco, own_shards), ArrayTask(0, 2)) is None
    assert all((own_shards / "train" / name).exists() for name in LEFTOVERS)  # another process may be writing them
    make_shards(tiny_recipe(drawn_coco, own_shards), ArrayTask(1, 2))
    assert contents(own_shards / "train") == contents(made_shards / "train")


@pytest.mark.parametrize(
    "override, field",
    [
        ("encoders.autoencoder={other_autoencoder}", r"encoders\.autoencoder: is the one with sha256 \w{12}"),
        ("model.sample_size=8", r"model\.sample_size: is 8, but .* was made with 4"),
        ("model.num_text_tokens=16", r"model\.num_text_tokens: is 16"),
        ("data.text_storage=token_ids", r"data\.text_storage: is token_ids"),
        ("data.samples_per_shard=5", r"data\.samples_per_shard: is 5"),
        ("data.samples_per_shard=20", r"data\.samples_per_shard: is 20"),
        ("data.encode_batch_size=2", r"data\.encode_batch_size: is 2, but .* was made with 3"),
    ],
)
def test_shards_of_other_settings_are_not_mixed(
    drawn_coco: Path, own_shards: Path, tmp_path: Path, override: str, field: str
) -> None:
    before = contents(own_shards / "train")
    override = override.format(other_autoencoder=other_autoencoder(tmp_path))
    with pytest.raises(UserError, match=f"{field}.*set it back to that to go on, or use another --out"):
        make_shards(tiny_recipe(drawn_coco, own_shards, override))
    assert contents(own_shards / "train") == before


def test_shards_that_are_too_many_are_not_left_beside_new_ones(drawn_coco: Path, own_shards: Path) -> None:
    shutil.copy(own_shards / "train" / "shard-000000.tar", own_shards / "train" / "shard-000003.tar")
    with pytest.raises(UserError, match=r"shard-000003\.tar: is none of the 3 shards needed here; move it away"):
        make_shards(tiny_recipe(drawn_coco, own_shards))


def test_changed_captions_are_not_mixed_in(own_coco: Path, own_shards: Path) -> None:
    before = contents(own_shards / "train")
    edit_annotations(own_coco, lambda content: content["annotations"][0].update(caption="Something else."))
    message = r"^data\.coco_root: 1 of the 3 shards in .* from other images .* delete .*\(shard-000002\.json\), or use"
    with pytest.raises(UserError, match=message):
        make_shards(tiny_recipe(own_coco, own_shards))
    assert contents(own_shards / "train") == before
    shutil.rmtree(own_shards / "train" / "listing")
    with pytest.raises(UserError, match=message):
        make_shards(tiny_recipe(own_coco, own_shards))


def test_of_changed_captions_only_the_shards_that_have_them_are_made_again(own_coco: Path, own_shards: Path) -> None:
    before = contents(own_shards / "train")
    edit_annotations(own_coco, lambda content: content["annotations"][0].update(caption="Something else."))
    (own_shards / "train" / "shard-000002.tar").unlink()
    make_shards(tiny_recipe(own_coco, own_shards))
    after = contents(own_shards / "train")
    assert {name for name in before if name.startswith("shard-") and before[name] != after[name]} == {
        "shard-000002.tar", "shard-000002.json", "shard-000002.index",
    }  # fmt: skip
    captions = [prompt for sample in samples_of(own_shards / "train") for prompt in sample["prompts.json"]]
    assert captions.count("Something else.") == 1
    assert ShardSet.open(own_shards / "train").num_samples == 10
