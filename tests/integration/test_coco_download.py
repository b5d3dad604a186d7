"""`python -m data_prep coco` against a small mirror on this machine: whole, faulty, killed."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from zipfile import ZipFile

import pytest

from data_prep import coco
from data_prep.coco import ARCHIVES, Archive
from data_prep.main import main
from data_prep.unpacking import unpack
from ifvit.config.errors import UserError
from ifvit.data.coco import read_coco
from tests.coco_mirror import Mirror, running_mirror
from tests.drawn_coco import draw_coco
from tests.integration.conftest import Command
from tests.range_server import Cut

FOLDERS = {"annotations", "train2014", "val2014"}
# What the command does, with other digests, and slower where the first argument says so.
CHILD = """
import json, sys, time
from pathlib import Path
from data_prep import coco, unpacking

write_member = unpacking.write_member
def slow_write_member(*arguments):
    time.sleep(float(sys.argv[1]))
    write_member(*arguments)
unpacking.write_member = slow_write_member
archives = [coco.Archive(**fields) for fields in json.loads(sys.argv[4])]
coco.make_coco(Path(sys.argv[2]), ["train"], sys.argv[3], archives=archives)
"""


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


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_whole_then_nothing_to_do(mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data/coco"
    mirror.make(folder)
    assert {path.name for path in folder.iterdir()} == {".lock", *FOLDERS}
    assert contents(folder) == contents(mirror.source)
    assert len(read_coco(folder, "train")) == 20
    assert mirror.server.sent == mirror.size
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}/train2014: 20 images, 39 captions",
        f"{folder}/val2014: 6 images, 12 captions",
    ]
    mirror.server.requests.clear()
    mirror.make(folder)
    assert not mirror.server.requests
    assert capsys.readouterr().out.count("(were there already)") == 2


def test_all_is_on_the_disk_before_it_has_its_name(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk = []
    monkeypatch.setattr(os, "sync", lambda: on_disk.append(contents(tmp_path)))
    mirror.make(tmp_path, ("val",))
    annotations, images = on_disk
    assert {Path(name).parent.name for name in annotations} == {".annotations.partial", "downloads"}
    assert {Path(name).parent.name for name in images} == {"annotations", ".val2014.partial", "downloads"}
    assert len(images) == 2 + 6 + 1


def test_one_split_then_the_other(mirror: Mirror, tmp_path: Path) -> None:
    mirror.make(tmp_path, ("val",))
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "annotations", "val2014"}
    mirror.make(tmp_path, ("train",))
    assert contents(tmp_path) == contents(mirror.source)
    assert mirror.server.sent == mirror.size


def test_zips_can_be_kept_and_brought(mirror: Mirror, tmp_path: Path) -> None:
    """A machine without a network takes them from downloads/."""
    mirror.make(tmp_path / "a", keep_zips=True)
    downloads = tmp_path / "a/downloads"
    assert contents(downloads) == {archive.name: mirror.content(archive) for archive in ARCHIVES}
    shutil.copytree(downloads, tmp_path / "b/downloads")
    mirror.server.requests.clear()
    mirror.make(tmp_path / "b")
    assert not mirror.server.requests
    assert contents(tmp_path / "b") == contents(mirror.source)


def test_a_folder_that_was_there_must_be_whole(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "train2014").mkdir()
    with pytest.raises(UserError, match=rf"images whose file is missing.*; delete what is wrong in {tmp_path}"):
        mirror.make(tmp_path, ("train",))


def test_the_command_checks_the_real_digests(mirror: Mirror, tmp_path: Path, command: Command) -> None:
    """The one test that runs the real table: what the small mirror serves is not COCO's."""
    refused = command("data_prep", "coco", "--out", tmp_path, "--url", mirror.server.url, code=2)
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    file = tmp_path / "downloads/annotations_trainval2014.zip"
    assert f"{file}: has md5 " in line
    assert "must have 0a379cfc70b0e71301e0f377548639bd; it was removed, run the same command again" in line
    assert "Traceback" not in refused.stderr
    assert {path.name for path in tmp_path.rglob("*")} == {".lock", "downloads"}


def test_a_wrong_digest_of_one_leaves_the_others(mirror: Mirror, tmp_path: Path) -> None:
    train = mirror.archives[1]
    right = mirror.content(train)
    mirror.server.files[f"/{train.path}"] = right[:-1] + b"?"
    with pytest.raises(UserError, match=r"train2014\.zip: has md5"):
        mirror.make(tmp_path)
    assert {path.name for path in tmp_path.rglob("*2014*")} == set(contents(mirror.source / "annotations"))
    mirror.server.files[f"/{train.path}"] = right
    mirror.make(tmp_path)
    assert contents(tmp_path) == contents(mirror.source)


def test_a_mirror_that_lacks_one(mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is known before anything is downloaded."""
    del mirror.server.files["/zips/val2014.zip"]
    assert main(["coco", "--out", str(tmp_path), "--url", f"{mirror.server.url}/"]) == 2
    assert f"{mirror.server.url}/zips/val2014.zip: the server answers 404 Not Found" in error_line(capsys)
    assert not mirror.server.downloads


@pytest.mark.parametrize(
    "url",
    ["", "images.cocodataset.org", "ftp://a.org", "file:///etc", "http://", "http://a:b", "http://a/\x1b", "http://[a"],
)
def test_no_address(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["coco", "--out", str(tmp_path / "a"), "--url", url]) == 2
    line = error_line(capsys)
    assert line == f"error: --url: is {url!r}, must be an address such as http://images.cocodataset.org"
    assert not (tmp_path / "a").exists()


def test_no_room_for_the_zips(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the worst moment there are the annotations, and the larger zip beside its content."""
    sizes = [len(mirror.content(archive)) for archive in ARCHIVES]
    needed = sizes[0] + 2 * sizes[1]
    have(needed - 1, monkeypatch)
    with pytest.raises(UserError) as refused:
        mirror.make(tmp_path)
    assert refused.value.lines == (
        f"{tmp_path}: {needed:,} bytes are needed here, {needed - 1:,} are free; make room or use another disk",
    )
    assert not mirror.server.downloads
    with pytest.raises(UserError, match=rf"{2 * sum(sizes):,} bytes are needed"):
        mirror.make(tmp_path, keep_zips=True)
    have(needed, monkeypatch)
    mirror.make(tmp_path)


def test_what_is_there_needs_no_more_room(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a zip of annotations, a zip of train, and one of its images."""
    annotations, train = (mirror.content(archive) for archive in ARCHIVES[:2])
    downloads, unpacked = tmp_path / "downloads", tmp_path / ".train2014.partial"
    downloads.mkdir()
    (downloads / "annotations_trainval2014.zip.partial").write_bytes(annotations[: len(annotations) // 2])
    (downloads / "train2014.zip").write_bytes(train)
    unpacked.mkdir()
    first = next((mirror.source / "train2014").iterdir())
    shutil.copy(first, unpacked)
    needed = len(annotations) - len(annotations) // 2 + len(train) - first.stat().st_size
    have(needed - 1, monkeypatch)
    with pytest.raises(UserError, match=f"{needed:,} bytes are needed"):
        mirror.make(tmp_path, ("train",))
    # Then without a guess: the images are a little smaller than their zip.
    needed = sum(path.stat().st_size for path in (mirror.source / "train2014").iterdir()) - first.stat().st_size
    have(needed - 1, monkeypatch)
    with pytest.raises(UserError, match=f"{needed:,} bytes are needed"):
        unpack(downloads / "train2014.zip", tmp_path / "train2014")
    have(needed, monkeypatch)
    unpack(downloads / "train2014.zip", tmp_path / "train2014")
    assert contents(tmp_path / "train2014") == contents(mirror.source / "train2014")


def test_no_room_for_the_content(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions are larger than their zip."""
    content = io.BytesIO()
    with ZipFile(content, "w", compression=8) as archive:
        archive.writestr("annotations/captions_train2014.json", bytes(1_000_000))
    mirror.serve(ARCHIVES[0], content.getvalue())
    have(900_000, monkeypatch)
    with pytest.raises(UserError, match="1,000,000 bytes are needed here, 900,000 are free"):
        mirror.make(tmp_path, ("train",))
    assert not (tmp_path / "annotations").exists()


def have(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(2 * free, free, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def test_the_disk_fills_up(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/annotations_trainval2014.zip.partial").symlink_to("/dev/full")
    with pytest.raises(UserError, match=f"--out {tmp_path}: cannot be written: No space left on device"):
        mirror.make(tmp_path)


def start(mirror: Mirror, folder: Path, repository: Path, seconds_per_file: float = 0.0) -> subprocess.Popen[bytes]:
    archives = json.dumps([asdict(archive) for archive in mirror.archives])
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(seconds_per_file), str(folder), mirror.server.url, archives],
        cwd=repository,
        env=os.environ | {"PYTHONPATH": str(repository)},
    )


def kill_when(process: subprocess.Popen[bytes], is_time: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_time():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_while_downloading(mirror: Mirror, tmp_path: Path, repository: Path) -> None:
    size = len(mirror.content(mirror.archives[1]))
    annotations = len(mirror.content(mirror.archives[0]))
    mirror.server.cuts = [Cut(annotations), Cut(size // 2, "stalls")]
    partial = tmp_path / "downloads/train2014.zip.partial"
    process = start(mirror, tmp_path, repository)
    kill_when(process, lambda: partial.exists() and partial.stat().st_size > 0)
    mirror.server.goes_on.set()
    there = partial.stat().st_size
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "annotations", "downloads"}
    assert not (tmp_path / "downloads/train2014.zip").exists()
    mirror.server.requests.clear()
    mirror.make(tmp_path, ("train",))
    assert mirror.server.downloads == [f"GET /zips/train2014.zip {there}-"]
    assert mirror.server.sent == annotations + size // 2 + size - there
    assert contents(tmp_path / "train2014") == contents(mirror.source / "train2014")


def test_killed_while_unpacking(mirror: Mirror, tmp_path: Path, repository: Path) -> None:
    unpacked = tmp_path / ".train2014.partial"
    process = start(mirror, tmp_path, repository, seconds_per_file=0.1)
    kill_when(process, lambda: unpacked.is_dir() and len(list(unpacked.iterdir())) >= 4)
    assert not (tmp_path / "train2014").exists()
    assert (tmp_path / "downloads/train2014.zip").is_file()
    finished, torn, scrambled, *_ = sorted(unpacked.iterdir())
    torn.write_bytes(torn.read_bytes()[:-10])  # what a kill leaves in the middle of a file
    scrambled.write_bytes(bytes(scrambled.stat().st_size))  # what a machine that goes down may leave
    written = finished.stat()
    mirror.server.requests.clear()
    mirror.make(tmp_path, ("train",))
    assert not mirror.server.requests
    assert contents(tmp_path / "train2014") == contents(mirror.source / "train2014")
    assert (tmp_path / "train2014" / finished.name).stat().st_mtime_ns == written.st_mtime_ns
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "annotations", "train2014"}


def test_killed_before_the_zip_is_removed(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(archive: Archive, folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(coco, "remove_zip", killed)
        with pytest.raises(KeyboardInterrupt):
            mirror.make(tmp_path)
    assert (tmp_path / "downloads/annotations_trainval2014.zip").is_file()
    mirror.make(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", *FOLDERS}
    assert mirror.server.sent == mirror.size
