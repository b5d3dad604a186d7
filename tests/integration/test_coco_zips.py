"""`python -m data_prep coco` and archives that are not what they should be."""

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import pytest

from data_prep.coco import ARCHIVES
from ifvit.config.errors import UserError
from tests.coco_mirror import Mirror, running_mirror
from tests.drawn_coco import draw_coco


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = draw_coco(tmp_path_factory.mktemp("coco"), "train", num_images=20)
    return draw_coco(root, "val", num_images=6)


@pytest.fixture
def mirror(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(os, "sync", lambda: None)  # it waits for all that the machine's other processes have written
    with running_mirror(source) as mirror:
        yield mirror


@pytest.mark.parametrize("name", ["../x", "train2014/../../x", "/tmp/x", "x", "val2014/x", "train2014"])
def test_a_zip_that_leads_out_of_its_folder(name: str, mirror: Mirror, tmp_path: Path) -> None:
    refuse_zip(mirror, tmp_path, [ZipInfo("train2014/a.jpg"), ZipInfo(name)], rf"{name!r} is not below train2014/")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_a_zip_with_a_link_or_a_device(kind: int, mirror: Mirror, tmp_path: Path) -> None:
    link = ZipInfo("train2014/b.jpg")
    link.external_attr = (kind | 0o777) << 16
    refuse_zip(mirror, tmp_path, [ZipInfo("train2014/a.jpg"), link], "'train2014/b.jpg' is a link or a device")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_a_name_twice(mirror: Mirror, tmp_path: Path) -> None:
    names = [ZipInfo("train2014/a.jpg"), ZipInfo("train2014//a.jpg")]
    refuse_zip(mirror, tmp_path, names, "'train2014//a.jpg' is in it twice")


def test_no_zip(mirror: Mirror, tmp_path: Path) -> None:
    mirror.serve(ARCHIVES[1], b"<html>")
    with pytest.raises(UserError, match=r"train2014.zip: cannot be unpacked: File is not a zip file; delete it"):
        mirror.make(tmp_path, ("train",))


def refuse_zip(mirror: Mirror, tmp_path: Path, members: list[ZipInfo], message: str) -> None:
    content = io.BytesIO()
    with ZipFile(content, "w") as archive:
        for member in members:
            archive.writestr(member, b"../../x")
    mirror.serve(ARCHIVES[1], content.getvalue())
    folder = tmp_path / "a/b/coco"
    with pytest.raises(UserError, match=f"train2014.zip: refused, {message}"):
        mirror.make(folder, ("train",))
    assert {path.name for path in folder.iterdir()} == {".lock", "annotations", "downloads"}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
