"""data_prep/shard_repair.py and repair_conditions.py"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.faults import FaultList
from data_prep.folder_lock import Claims, try_lock
from data_prep.listing import Listing
from data_prep.repair_conditions import refuse_other_samples
from data_prep.set_verification import SetVerification
from data_prep.shard_repair import repair_shards
from data_prep.shard_writer import ShardWriter
from data_prep.shards import make_shards
from data_prep.tar_source import TarSource
from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from tests.drawn_coco import draw_coco, edit_annotations, tiny_recipe
from tests.forged_shards import reseal
from tests.made_tars import make_tar
from tests.shard_folders import contents


@pytest.fixture
def coco(drawn_coco: Path, tmp_path: Path) -> Path:
    return shutil.copytree(drawn_coco, tmp_path / "coco")


@pytest.fixture
def recipe(coco: Path, own_shards: Path) -> Recipe:
    return tiny_recipe(coco, own_shards)


@pytest.fixture
def folder(own_shards: Path) -> Path:
    return own_shards / "train"


@pytest.fixture
def sound(made_shards: Path) -> dict[str, bytes]:
    return contents(made_shards / "train")


def flip(path: Path, place: int = 5000) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1
    path.write_bytes(content)


def identity(path: Path) -> tuple[int, int]:
    """Of a file's content, unless it is written to."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def image_of(coco: Path, id_: int) -> Path:
    return coco / "train2014" / f"COCO_train2014_{id_:012d}.jpg"


DAMAGE: dict[str, tuple[list[str], Callable[[Path], object]]] = {
    "tar": (["shard-000001.tar"], flip),
    "tar gone": (["shard-000001.tar"], Path.unlink),
    "tar cut": (["shard-000001.tar"], lambda path: os.truncate(path, 700)),
    "index": (["shard-000001.index"], flip),
    "mark": (["shard-000001.json"], flip),
    "mark gone": (["shard-000001.json"], Path.unlink),
    "whole shard": (["shard-000001.tar", "shard-000001.index", "shard-000001.json"], Path.unlink),
    "all shards": ([f"shard-{number:06d}.tar" for number in range(3)], flip),
    "index.json": (["index.json"], flip),
    "samples.index": (["samples.index"], flip),
    "null": (["null_prompt_embeds.npy"], flip),
    "listing": (["listing/listing.json"], flip),
    "rows": (["listing/shard-000002.jsonl"], flip),
    "rows gone": (["listing/shard-000002.jsonl"], Path.unlink),
    "mark and listing": (["shard-000001.json", "listing/listing.json"], flip),
    "tar and index.json": (["shard-000000.tar", "index.json"], flip),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_comes_back_byte_identical(
    recipe: Recipe, folder: Path, sound: dict[str, bytes], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files, damage = DAMAGE[name]
    for file in files:
        damage(folder / file)
    damaged = {file[:12] for file in files if file.startswith("shard-")}
    others = [path for path in folder.glob("shard-*") if path.name[:12] not in damaged]
    before = [identity(path) for path in others]
    repair_shards(recipe)
    assert contents(folder) == sound
    assert [identity(path) for path in others] == before
    out = capsys.readouterr().out
    assert f"{folder}: repaired: {len(damaged)} shards made again, and verified" in out
    assert "other bytes than before" not in out
    assert all(f"removed {folder / file}: " in out for file in files if damage is flip), out
    # Whatever ends it, nothing that is left says that what is gone is there.
    removed = [line.split(": ")[0].removeprefix(f"removed {folder}/") for line in out.splitlines() if "removed" in line]
    assert removed[:1] == ["index.json"] or (files == ["index.json"] and damage is not flip)
    marks = [f"{file[:12]}.json" for file in removed if file.endswith(".tar")]
    assert all(mark in removed[: len(marks) + 1] for mark in marks if damage is flip), removed


def test_what_is_sound_is_left_alone(recipe: Recipe, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: identity(path) for path in folder.rglob("*")}
    repair_shards(recipe)
    assert {path: identity(path) for path in folder.rglob("*")} == before
    assert capsys.readouterr().out == f"{folder}: sound, nothing to repair\n"


def refused(recipe: Recipe, folder: Path, message: str) -> None:
    """Repair raises an error that matches, and leaves all as it is."""
    before = contents(folder)
    with pytest.raises(UserError, match=message):
        repair_shards(recipe)
    assert contents(folder) == before


def test_images_that_are_gone_are_named_with_their_shards(recipe: Recipe, folder: Path, coco: Path) -> None:
    flip(folder / "shard-000000.tar")
    flip(folder / "shard-000002.tar")
    for id_ in (10, 13, 31):
        image_of(coco, id_).unlink()
    tars = r"shard-000000\.tar, shard-000002\.tar"
    message = rf"^{image_of(coco, 10)}: is gone, one of 3 images of {tars}\n.*nothing sound was touch"
    refused(recipe, folder, message)
    shutil.rmtree(coco)
    refused(recipe, folder, rf"^data\.coco_root: .* is no folder.*\n.*to be made again from images: {tars}; ")


def test_images_of_sound_shards_are_not_needed(
    recipe: Recipe, folder: Path, coco: Path, sound: dict[str, bytes]
) -> None:
    flip(folder / "shard-000000.tar")
    for number in range(4, 10):
        image_of(coco, 7 + 3 * number).unlink()
    repair_shards(recipe)
    assert contents(folder) == sound


@pytest.mark.parametrize("files", [["shard-000000.tar"], ["shard-000000.json"], ["shard-000000.json", "index.json"]])
def test_an_image_that_was_never_there_is_not_missed(tmp_path: Path, files: list[str]) -> None:
    coco = draw_coco(tmp_path / "coco")
    image_of(coco, 10).unlink()
    recipe = tiny_recipe(coco, tmp_path / "shards", "data.max_bad_share=0.1")
    make_shards(recipe)
    folder = tmp_path / "shards" / "train"
    sound = contents(folder)
    for name in files:
        (folder / name).unlink()
    if "index.json" in files:  # nothing says any more that it was not there
        refused(recipe, folder, rf"^{image_of(coco, 10)}: is gone, one of 1 images of shard-000000\.tar\n")
    else:
        repair_shards(recipe)
        assert contents(folder) == sound


def test_of_more_images_than_index_json_names_the_number_is_compared(tmp_path: Path) -> None:
    coco = draw_coco(tmp_path / "coco", num_images=20)
    missing = [7 + 3 * number for number in range(20) if number not in (0, 5, 9, 13, 19)]
    for id_ in missing:
        image_of(coco, id_).rename(coco / f"{id_}.jpg")
    recipe = tiny_recipe(coco, tmp_path / "shards", "data.max_bad_share=0.9")
    make_shards(recipe)
    folder = tmp_path / "shards" / "train"
    sound = contents(folder)
    for names in ((3,), (0, 4), range(5)):
        for number in names:
            flip(folder / f"shard-{number:06d}.json")
        repair_shards(recipe)
        assert contents(folder) == sound
    (folder / "shard-000003.json").unlink()
    (folder / "shard-000004.json").unlink()
    image_of(coco, 7 + 3 * 13).unlink()  # of shard 3, of which index.json names one of three images
    refused(
        recipe,
        folder,
        r"\.jpg: is gone, one of 6 images of shard-000003\.tar, shard-000004\.tar; 5 of them were gone before",
    )


@pytest.mark.parametrize(
    "override, message",
    [
        (
            "data.text_storage=token_ids",
            r"^data\.text_storage: is token_ids, but the shards in .* with embeddings; give",
        ),
        ("data.encode_batch_size=2", r"^data\.encode_batch_size: is 2, but the shards in .* were made with 3"),
        ("data.samples_per_shard=5", r"^data\.samples_per_shard: is 5, but"),
        ("encoders.scaling_factor=0.5", r"^encoders\.scaling_factor: is 0\.5, but the shards in .* with None"),
        ("model.num_text_tokens=13", r"^model\.num_text_tokens: is 13, but"),
    ],
)
def test_another_recipe_is_refused_before_anything_is_removed(
    coco: Path, own_shards: Path, override: str, message: str
) -> None:
    flip(own_shards / "train" / "shard-000000.tar")
    refused(tiny_recipe(coco, own_shards, override), own_shards / "train", message)


def test_changed_captions_are_refused_where_a_sound_shard_has_them(recipe: Recipe, folder: Path, coco: Path) -> None:
    flip(folder / "shard-000000.tar")
    edit_annotations(coco, lambda content: content["annotations"][0].update(caption="Something else."))
    refused(recipe, folder, r"^data\.coco_root: .* such as shard-000002\.tar.*\n.*nothing sound was touched")


@pytest.mark.parametrize("files", [["listing/shard-000001.jsonl"], ["listing/listing.json", "shard-000000.tar"]])
def test_a_damaged_listing_of_a_source_that_has_changed_is_left(
    recipe: Recipe, folder: Path, coco: Path, files: list[str]
) -> None:
    for name in files:
        flip(folder / name)
    edit_annotations(coco, lambda content: content["annotations"][0].update(caption="Something else."))
    what = "to be made again from images: shard-000000.tar" if len(files) > 1 else f"to be made again: {files[0]}"
    refused(
        recipe,
        folder,
        r"^data\.coco_root: 1 of the 3 shards in .* were made from other images or captions than are there now, such "
        rf"as shard-000002\.tar\n.*train: {what}; nothing sound was touched$",
    )


def test_tars_of_a_second_folder_change_all_rows(folder: Path, tmp_path: Path) -> None:
    source = TarSource([str(make_tar(tmp_path / name / "a.tar", {})) for name in "ab"])
    listing = Listing(folder / "listing", {"shards": [{"sha256": "0"}] * 3})
    with pytest.raises(UserError, match=r"^data\.image_tars: 3 of the 3 .* a second folder changes all\)$"):
        refuse_other_samples(SetVerification(folder), listing, source)


@pytest.mark.parametrize("damaged", ["shard-000001.tar", "shard-000001.json", "index.json"])
def test_more_bad_samples_than_the_recipe_allows_are_refused(tmp_path: Path, damaged: str) -> None:
    coco = draw_coco(tmp_path / "coco")
    image_of(coco, 10).write_text("no image")
    make_shards(tiny_recipe(coco, tmp_path / "shards", "data.max_bad_share=0.5"))
    (Path.unlink if damaged == "shard-000001.json" else flip)(tmp_path / "shards" / "train" / damaged)
    refused(
        tiny_recipe(coco, tmp_path / "shards"), tmp_path / "shards" / "train", r"^data\.max_bad_share: allows 0\.001"
    )


def test_more_bad_captions_than_the_recipe_allows_are_refused(tmp_path: Path) -> None:
    coco = draw_coco(tmp_path / "coco")
    edit_annotations(coco, lambda content: content["annotations"][1].update(caption=" "))
    make_shards(tiny_recipe(coco, tmp_path / "shards", "data.max_bad_share=0.5"))
    flip(tmp_path / "shards" / "train" / "shard-000001.tar")
    refused(
        tiny_recipe(coco, tmp_path / "shards"), tmp_path / "shards" / "train", r"^data\.max_bad_share: .* captions "
    )


def test_a_shard_that_is_not_what_it_was_is_told(
    recipe: Recipe, folder: Path, coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(folder / "shard-000001.tar")
    shutil.copy(image_of(coco, 7), image_of(coco, 22))
    repair_shards(recipe)
    assert "note: shard-000001.tar have other bytes than before" in capsys.readouterr().out


def test_files_of_others_are_not_touched(recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind more faults than are kept."""
    monkeypatch.setattr("data_prep.set_verification.FaultList", lambda: FaultList(max_kept=1))
    flip(folder / "shard-000000.tar")
    shutil.copy(folder / "shard-000001.tar", folder / "shard-000003.tar")
    refused(recipe, folder, r"shard-000003\.tar: is none of the set's 3 shards; move it away")


@pytest.mark.parametrize("lock", [".claims", ".lock"])
def test_refused_while_another_process_makes_shards(recipe: Recipe, folder: Path, lock: str) -> None:
    flip(folder / "shard-000000.tar")
    receiver, sender = os.pipe()
    if (process := os.fork()) == 0:
        try:
            with Claims(folder / lock) as claims:
                held = claims.take(1) if lock == ".claims" else try_lock(claims.file)
                os.write(sender, b"x" if held else b"-")
                time.sleep(100)
        finally:
            os._exit(0)
    try:
        assert os.read(receiver, 1) == b"x"
        refused(recipe, folder, "another process makes shards here")
    finally:
        os.kill(process, 9)
        os.waitpid(process, 0)
    repair_shards(recipe)


def test_no_other_process_makes_shards_while_damage_is_removed(
    recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(folder / "shard-000000.tar")
    seen = []

    def look(*arguments: object) -> None:
        if (process := os.fork()) == 0:
            os._exit(int(Claims(folder / ".claims").take(2)))
        seen.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))

    monkeypatch.setattr("data_prep.shard_repair.refuse_changes", look)
    repair_shards(recipe)
    assert seen == [0]


def test_shards_that_were_never_finished_are_finished(recipe: Recipe, folder: Path, sound: dict[str, bytes]) -> None:
    for path in [*folder.glob("shard-000002.*"), folder / "index.json", folder / "samples.index"]:
        path.unlink()
    repair_shards(recipe)
    assert contents(folder) == sound


def test_what_is_made_again_is_verified(recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(folder / "shard-000000.tar")
    write = ShardWriter.write

    def write_badly(self: ShardWriter, unit, limit, advance):
        mark = write(self, unit, limit, advance)
        flip(unit.files.tar)
        return mark

    monkeypatch.setattr(ShardWriter, "write", write_badly)
    with pytest.raises(UserError, match=r"shard-000000\.tar: "):
        repair_shards(recipe)


def test_a_folder_without_shards(coco: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train: is no folder"):
        repair_shards(tiny_recipe(coco, tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


def test_a_mark_of_other_settings_is_not_repaired_over(recipe: Recipe, folder: Path) -> None:
    reseal(folder / "shard-000000.json", lambda values: values["settings"].update({"encoders.autoencoder": "other"}))
    refused(recipe, folder, r"^encoders\.autoencoder: ")
