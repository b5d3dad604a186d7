"""Images that shards were made without, and that can be used now."""

import shutil
from pathlib import Path

import pytest

from data_prep.array_task import ArrayTask
from data_prep.shards import make_shards
from ifvit.config.errors import UserError
from tests.drawn_coco import tiny_recipe
from tests.shard_folders import contents


@pytest.fixture
def coco(drawn_coco: Path, tmp_path: Path) -> Path:
    """Without the images 7 and 19, of the first and the second shard."""
    root = shutil.copytree(drawn_coco, tmp_path / "coco")
    for id_ in (7, 19):
        image_of(root, id_).unlink()
    return root


def image_of(root: Path, id_: int) -> Path:
    return root / "train2014" / f"COCO_train2014_{id_:012d}.jpg"


def put_back(drawn_coco: Path, coco: Path, *ids: int) -> None:
    for id_ in ids:
        shutil.copy(image_of(drawn_coco, id_), image_of(coco, id_))


def test_a_missing_image_that_is_there_again_comes_into_its_shard(
    coco: Path, drawn_coco: Path, made_shards: Path, tmp_path: Path
) -> None:
    recipe, folder = tiny_recipe(coco, tmp_path / "out", "data.max_bad_share=0.2"), tmp_path / "out" / "train"
    make_shards(recipe)
    before = contents(folder)
    put_back(drawn_coco, coco, 7)
    index = make_shards(recipe)
    assert index is not None and index["quarantined"] == {
        "missing file": {"count": 1, "ids": [19], "image": image_of(coco, 19).name}
    }
    after = contents(folder)
    assert {name for name in before if name.endswith(".tar") and before[name] != after[name]} == {"shard-000000.tar"}
    put_back(drawn_coco, coco, 19)
    make_shards(recipe)
    assert contents(folder) == contents(made_shards / "train")


def test_tasks_get_out_of_too_many_missing_images(
    coco: Path, drawn_coco: Path, made_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_recipe(coco, tmp_path / "out", "data.max_bad_share=0.1")
    assert [make_shards(recipe, ArrayTask(number, 3)) for number in range(2)] == [None, None]
    with pytest.raises(
        UserError, match=r"2 missing file \(ids 7, 19; the first is \S+\.jpg\); mend or remove them, or allow more"
    ):
        make_shards(recipe, ArrayTask(2, 3))
    put_back(drawn_coco, coco, 7, 19)
    capsys.readouterr()
    assert make_shards(recipe, ArrayTask(2, 3)) is None
    said = capsys.readouterr().out
    assert "0 shards made, 2 of 3 are missing; other tasks may be making them: " in said
    assert "starting all of them again makes the rest" in said
    assert make_shards(recipe, ArrayTask(0, 3)) is None
    assert make_shards(recipe, ArrayTask(1, 3)) is not None
    assert contents(tmp_path / "out" / "train") == contents(made_shards / "train")


def test_of_other_faults_the_done_marks_are_named(
    coco: Path, drawn_coco: Path, made_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_back(drawn_coco, coco, 7)
    image_of(coco, 16).write_bytes(b"no image")
    image_of(coco, 34).write_bytes(b"no image")
    recipe, folder = tiny_recipe(coco, tmp_path / "out", "data.max_bad_share=0.3"), tmp_path / "out" / "train"
    make_shards(recipe)
    line = "to have mended images in the shards: delete shard-000000.json, shard-000002.json, and run the same command"
    assert line in capsys.readouterr().out.splitlines()
    with pytest.raises(UserError, match=r"mend or remove them and delete shard-000000\.json, shard-000002\.json, or"):
        make_shards(tiny_recipe(coco, tmp_path / "out", "data.max_bad_share=0.1"))
    put_back(drawn_coco, coco, 16, 19, 34)
    for number in (0, 2):
        (folder / f"shard-{number:06d}.json").unlink()
    make_shards(tiny_recipe(coco, tmp_path / "out"))
    assert contents(folder) == contents(made_shards / "train")
    assert "to have mended" not in capsys.readouterr().out


def test_tasks_that_exceed_the_limit_together_name_the_done_marks_of_all(coco: Path, tmp_path: Path) -> None:
    for id_ in (7, 19):
        image_of(coco, id_).write_bytes(b"no image")
    recipe = tiny_recipe(coco, tmp_path / "out", "data.max_bad_share=0.1")
    assert [make_shards(recipe, ArrayTask(number, 3)) for number in range(2)] == [None, None]
    with pytest.raises(UserError, match=r"remove them and delete shard-000000\.json, shard-000001\.json, or allow"):
        make_shards(recipe, ArrayTask(2, 3))
