"""data_prep/index_stage.py: when the index is made anew, and what it says of unlike shards."""

from pathlib import Path

import pytest

from data_prep.shards import make_shards
from ifvit.config.errors import UserError
from tests.drawn_coco import tiny_recipe
from tests.forged_shards import reseal
from tests.shard_folders import contents


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", ".claims")]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_a_finished_set_is_neither_read_nor_written(
    drawn_coco: Path, own_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = identities(own_shards / "train")
    read_bytes = Path.read_bytes

    def small(path: Path) -> bytes:
        assert path.suffix not in (".tar", ".index"), path
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", small)
    make_shards(tiny_recipe(drawn_coco, own_shards))
    assert identities(own_shards / "train") == before


@pytest.mark.parametrize("name", ["index.json", "samples.index", "null_prompt_embeds.npy"])
def test_an_index_that_is_cut_is_made_anew(drawn_coco: Path, made_shards: Path, own_shards: Path, name: str) -> None:
    path = own_shards / "train" / name
    path.write_bytes(path.read_bytes()[:-1])
    make_shards(tiny_recipe(drawn_coco, own_shards))
    assert contents(own_shards / "train") == contents(made_shards / "train")


def test_an_index_of_other_marks_is_made_anew(drawn_coco: Path, made_shards: Path, own_shards: Path) -> None:
    reseal(own_shards / "train" / "index.json", lambda values: values["shards"][1].update(sha256="0" * 64))
    make_shards(tiny_recipe(drawn_coco, own_shards))
    assert contents(own_shards / "train") == contents(made_shards / "train")


def test_a_damaged_part_does_not_get_into_a_new_index(drawn_coco: Path, made_shards: Path, own_shards: Path) -> None:
    folder = own_shards / "train"
    (folder / "index.json").unlink()
    part = folder / "shard-000001.index"
    part.write_bytes(bytes(part.stat().st_size))
    with pytest.raises(UserError, match=rf"^{part}: is damaged .*; delete it and run the same command again"):
        make_shards(tiny_recipe(drawn_coco, own_shards))
    part.unlink()
    make_shards(tiny_recipe(drawn_coco, own_shards))
    assert contents(folder) == contents(made_shards / "train")


def test_shards_of_different_versions_are_told_once(
    drawn_coco: Path, own_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = own_shards / "train"
    reseal(folder / "shard-000002.json", lambda values: values["made_with"].update(device="cuda", torch="9.9"))
    (folder / "index.json").unlink()
    make_shards(tiny_recipe(drawn_coco, own_shards))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "may differ" in line]
    assert line.startswith(f"note: the shards in {folder} may differ in last bits: 2 with device cpu, torch ")
    assert "; 1 with device cuda, torch 9.9, diffusers " in line
    make_shards(tiny_recipe(drawn_coco, own_shards))
    assert "may differ" not in capsys.readouterr().out
