"""data_prep/download.py against a server with every fault that a long download meets."""

import hashlib
from collections.abc import Iterator
from http.client import BadStatusLine
from pathlib import Path

import numpy as np
import pytest

from data_prep import download as download_module
from data_prep.download import check_digest, download, remote_size
from ifvit.config.errors import UserError
from tests.range_server import Cut, RangeServer, running_server

CONTENT = np.random.default_rng(0).bytes(300_000)
CHANGED = np.random.default_rng(1).bytes(300_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    """It has /a.zip. Tries follow each other at once."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download_module, "PAUSES", (0.0, 0.0, 0.0))
    with running_server() as state:
        state.files["/a.zip"] = CONTENT
        yield state


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.zip"


def fetch(server: RangeServer, file: Path) -> None:
    download(f"{server.url}/a.zip", file)


def stop_early(server: RangeServer, file: Path, position: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first start, which gives up after `position` bytes."""
    server.cuts = [Cut(position)]
    with monkeypatch.context() as patch:
        patch.setattr(download_module, "PAUSES", ())
        with pytest.raises(UserError):
            fetch(server, file)
    assert not file.exists()
    server.requests.clear()


def only_file(file: Path, content: bytes = CONTENT) -> bool:
    return file.read_bytes() == content and list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("content", [CONTENT, b""])
def test_whole(content: bytes, server: RangeServer, file: Path) -> None:
    server.files["/a.zip"] = content
    fetch(server, file)
    assert only_file(file, content)
    assert server.requests == ["GET /a.zip"]


@pytest.mark.parametrize("way", ["ends", "stalls"])
def test_a_lost_connection_is_taken_up(
    way: str, server: RangeServer, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(download_module, "TIMEOUT_SECONDS", 0.7)
    server.cuts = [Cut(100_000, way), Cut(50_000, way)]
    fetch(server, file)
    assert only_file(file)
    assert server.requests == ["GET /a.zip", "GET /a.zip 100000-", "GET /a.zip 150000-"]
    assert server.sent == len(CONTENT)
    problem = "the connection ended after 100,000 of 300,000 bytes" if way == "ends" else "timed out"
    assert f"{server.url}/a.zip: {problem}; trying again in 0 s" in capsys.readouterr().err


def test_a_reset_connection_is_taken_up(server: RangeServer, file: Path) -> None:
    server.cuts = [Cut(100_000, "is reset")]
    fetch(server, file)
    assert only_file(file)
    assert len(server.requests) == 2


def test_the_next_start_goes_on(server: RangeServer, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_early(server, file, 120_000, monkeypatch)
    fetch(server, file)
    assert only_file(file)
    assert server.requests == ["GET /a.zip 120000-"]
    assert server.sent == len(CONTENT)


def test_all_was_there_but_the_name(server: RangeServer, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(partial: download_module.PartialFile, file: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download_module.PartialFile, "become", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(server, file)
    assert not file.exists()
    fetch(server, file)
    assert only_file(file)
    assert server.requests == ["GET /a.zip"]


def test_gives_up_when_nothing_new_comes(server: RangeServer, file: Path) -> None:
    """After three further tries; those that bring something begin the count again."""
    server.cuts = [Cut(100_000), Cut(10_000), Cut(0), Cut(0), Cut(0)]
    with pytest.raises(UserError) as refused:
        fetch(server, file)
    assert refused.value.lines == (
        f"{server.url}/a.zip: the connection ended after 110,000 of 300,000 bytes, after 4 tries; "
        "run the same command again, it goes on from there",
    )
    assert not server.cuts
    fetch(server, file)
    assert only_file(file) and server.sent == len(CONTENT)


def test_nobody_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "PAUSES", (0.0,))
    with running_server() as gone:
        pass
    with pytest.raises(UserError, match=r"Connection refused, after 2 tries; run the same command again"):
        fetch(gone, file)


def test_a_server_without_ranges_starts_anew(server: RangeServer, file: Path) -> None:
    server.knows_ranges = False
    server.cuts = [Cut(100_000)]
    fetch(server, file)
    assert only_file(file)
    assert server.sent == 100_000 + len(CONTENT)


def test_a_server_without_ranges_that_always_stops_is_given_up(server: RangeServer, file: Path) -> None:
    server.knows_ranges = False
    server.cuts = [Cut(100_000)] * 100
    with pytest.raises(UserError, match="after 4 tries"):
        fetch(server, file)
    assert len(server.requests) == 4


@pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
def test_another_file_by_now_starts_anew(
    validator: str, server: RangeServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.validator = validator
    stop_early(server, file, 100_000, monkeypatch)
    server.files["/a.zip"] = CHANGED
    server.cuts = [Cut(200_000)]  # whose rest is of the new version
    fetch(server, file)
    assert only_file(file, CHANGED)
    assert server.requests == ["GET /a.zip 100000-", "GET /a.zip 200000-"]


@pytest.mark.parametrize("size", [299_999, 50_000])
def test_another_file_by_now_shows_in_its_size(
    size: int, server: RangeServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a server that gives no validator; 50,000 bytes end before the range begins."""
    server.validator = None
    stop_early(server, file, 100_000, monkeypatch)
    server.files["/a.zip"] = CHANGED[:size]
    fetch(server, file)
    assert only_file(file, CHANGED[:size])
    assert server.requests == ["GET /a.zip 100000-", "GET /a.zip"]


def test_another_range_than_asked_for_starts_anew(
    server: RangeServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_early(server, file, 100_000, monkeypatch)
    server.range_offset = 1
    fetch(server, file)
    assert only_file(file)
    assert server.requests == ["GET /a.zip 100000-", "GET /a.zip"]


@pytest.mark.parametrize("damage", ["no version", "no JSON", "too long"])
def test_what_cannot_be_continued_starts_anew(
    damage: str, server: RangeServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_early(server, file, 100_000, monkeypatch)
    partial, version = (file.with_name(f"a.zip.{end}") for end in ("partial", "partial.json"))
    if damage == "no version":
        version.unlink()
    elif damage == "no JSON":
        version.write_text("{")
    else:
        partial.write_bytes(CONTENT + b"more")
    fetch(server, file)
    assert only_file(file)
    assert server.requests == ["GET /a.zip"]


def test_a_weak_etag_guards_no_range() -> None:
    assert download_module.version_of(Answer({"ETag": 'W/"a"', "Last-Modified": "Monday"})).validator == "Monday"
    assert download_module.version_of(Answer({"ETag": 'W/"a"'})).validator is None
    assert download_module.version_of(Answer({"ETag": '"a\n b"'})).validator is None  # would break the next request


class Answer:
    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers


def test_a_size_that_is_not_told(server: RangeServer, file: Path) -> None:
    server.gives_size = False
    fetch(server, file)
    assert only_file(file)
    assert remote_size(f"{server.url}/a.zip") is None


def test_not_found_is_not_tried_again(server: RangeServer, file: Path) -> None:
    server.files.clear()
    for look_up in (lambda: fetch(server, file), lambda: remote_size(f"{server.url}/a.zip")):
        with pytest.raises(UserError) as refused:
            look_up()
        assert refused.value.lines == (
            f"{server.url}/a.zip: the server answers 404 Not Found; is this the right address?",
        )
    assert server.requests == ["GET /a.zip", "HEAD /a.zip"]
    assert not list(file.parent.iterdir())


def test_a_busy_server_is_tried_again(server: RangeServer, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [503, 429]
    fetch(server, file)
    assert only_file(file)
    err = capsys.readouterr().err
    assert "the server answers 503 Service Unavailable; trying again" in err
    assert "\x1b" not in err


def test_what_a_server_sends_is_printed_without_control_characters() -> None:
    line = download_module.reason(BadStatusLine("\x1b[31m\nerror: all is well" + 1000 * " "))
    assert line.startswith(r"\x1b[31m\nerror: all is well") and len(line) < 300


def test_the_size_before_the_download(server: RangeServer) -> None:
    server.answers = [503]
    assert remote_size(f"{server.url}/a.zip") == len(CONTENT)
    server.answers = [405]
    assert remote_size(f"{server.url}/a.zip") is None
    assert server.sent == 0


def test_a_full_disk_is_no_fault_of_the_connection(server: RangeServer, file: Path) -> None:
    file.with_name("a.zip.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        fetch(server, file)
    assert server.requests == ["GET /a.zip"]


def test_digest(file: Path) -> None:
    file.write_bytes(CONTENT)
    right = hashlib.md5(CONTENT).hexdigest()
    check_digest(file, right)
    wrong = hashlib.md5(CHANGED).hexdigest()
    with pytest.raises(UserError, match=f"a.zip: has md5 {right}, must have {wrong}; it was removed"):
        check_digest(file, wrong)
    assert not file.exists()
