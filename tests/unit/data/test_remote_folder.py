"""ifvit/data/remote_folder.py"""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ifvit.config.errors import UserError
from ifvit.data import remote_folder as remote_folder_module
from ifvit.data.remote_folder import RemoteFolder, StoppedError
from tests.range_server import Cut, RangeServer, running_server

CONTENT = np.random.default_rng(0).bytes(300_000)
NO_STOP = threading.Event()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    """It has /set/a.tar. Tries follow each other at once."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(remote_folder_module, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(remote_folder_module, "LONG_PAUSES", (0.0, 0.0, 0.0))
    with running_server() as state:
        state.files["/set/a.tar"] = CONTENT
        yield state


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.tar"


def copy(server: RangeServer, file: Path, size: int = len(CONTENT)) -> None:
    RemoteFolder(f"{server.url}/set").copy("a.tar", file, size, NO_STOP)


def test_reads_and_copies(server: RangeServer, file: Path) -> None:
    folder = RemoteFolder(f"{server.url}/set/")
    assert folder.read("a.tar") == CONTENT
    folder.copy("a.tar", file, len(CONTENT), NO_STOP)
    assert file.read_bytes() == CONTENT
    assert server.requests == ["GET /set/a.tar"] * 2


def test_through_the_proxy_of_the_environment(server: RangeServer, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", server.url)
    server.files["http://behind.invalid/set/a.tar"] = CONTENT
    RemoteFolder("http://behind.invalid/set").copy("a.tar", file, len(CONTENT), NO_STOP)
    assert file.read_bytes() == CONTENT


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_other_protocols(protocol: str, file: Path, tmp_path: Path) -> None:
    root = str(tmp_path) if protocol == "file" else "/somewhere"
    source = tmp_path / "set" / "b.tar"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    if protocol == "memory":
        MemoryFileSystem().pipe_file("/somewhere/set/b.tar", CONTENT)
    folder = RemoteFolder(f"{protocol}://{root}/set")
    assert folder.read("b.tar") == CONTENT
    folder.copy("b.tar", file, len(CONTENT), NO_STOP)
    assert file.read_bytes() == CONTENT
    with pytest.raises(UserError, match=rf"^{protocol}://.*/set/c\.tar: there is no such file"):
        folder.read("c.tar")


def test_names_that_need_quoting(server: RangeServer) -> None:
    server.files["/my%20set/a.tar"] = CONTENT
    assert RemoteFolder(f"{server.url}/my set").read("a.tar") == CONTENT
    assert RemoteFolder(f"{server.url}/my%20set").read("a.tar") == CONTENT


def test_what_is_secret_is_sent_and_never_shown(
    server: RangeServer, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = server.url.removeprefix("http://")
    server.files = {"/set/a.tar?sig=S3CRET%2F": CONTENT}
    folder = RemoteFolder(f"http://user:S3CRET@{host}/set?sig=S3CRET%2F")
    server.answers = [503]
    assert folder.read("a.tar") == CONTENT
    assert folder.name() == f"http://{host}/set"
    assert folder.name("a.tar") == f"http://{host}/set/a.tar"
    shown = [capsys.readouterr().err]
    assert f"http://{host}/set/a.tar: the server answers 503" in shown[0]
    for answers in ([404], [403], [400], [500] * 4):
        server.answers = answers
        with pytest.raises(UserError) as refused:
            folder.copy("a.tar", file, len(CONTENT), NO_STOP)
        shown += [*refused.value.lines, capsys.readouterr().err]
    assert all("S3CRET" not in text for text in shown)
    assert "\x1b" not in "".join(shown)  # the server's own words


@pytest.mark.parametrize("url", ["user:S3CRET@host/set", "a b://user:S3CRET@host/set", "simplecache::s3://S3CRET/set"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UserError, match=r"^data\.shards_root: is no address") as refused:
        RemoteFolder(url)
    assert "S3CRET" not in str(refused.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(UserError, match=r"^s3://bucket/set: .* is missing: pip install 'ifvit\[s3\]'$"):
        RemoteFolder("s3://bucket/set")


def test_an_unknown_protocol() -> None:
    with pytest.raises(UserError, match=r"^data\.shards_root: is no address such as https://host/folder"):
        RemoteFolder("s4://bucket/set")


@pytest.mark.parametrize(
    "url",
    [
        "https://[bad/x", "https://host:99999/x", "https://host:abc/x", "ftp://host/x", "https:///x", "host/x", "https://",
        "https://me:SECRET\u2100@host/x", "https://me:SECRET#1@host/x", "https://me:SECRET/1@host/x", "https://host/x#SECRET",
    ],
)  # fmt: skip
def test_what_no_file_system_takes(url: str) -> None:
    with pytest.raises(UserError, match=r"^data\.shards_root: is no address such as https://host/folder") as refused:
        RemoteFolder(url)
    assert "SECRET" not in str(refused.value)


def test_what_is_larger_than_it_may_be(server: RangeServer) -> None:
    with pytest.raises(UserError, match=r"/set/a\.tar: has more than 100 bytes; is this the right address"):
        RemoteFolder(f"{server.url}/set").read("a.tar", 100)


def test_a_missing_sign_in_is_not_tried_again(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore's error, which is no PermissionError."""
    error = type("NoCredentialsError", (Exception,), {"__module__": "botocore.exceptions"})
    folder = RemoteFolder(f"{server.url}/set")
    calls = []

    def fails(*arguments: object, **options: object) -> None:
        calls.append(1)
        raise error

    monkeypatch.setattr(folder.files, "get_file", fails)
    with pytest.raises(UserError, match="are you signed in"):
        folder.read("a.tar")
    assert len(calls) == 1


@pytest.mark.parametrize(
    "code, message",
    [
        (404, "there is no such file"),
        (403, "the server answers 403 Forbidden; is this the right address"),
        (401, "the server answers 401 Unauthorized"),
    ],
)
def test_a_refusal_is_not_tried_again(code: int, message: str, server: RangeServer, file: Path) -> None:
    server.answers = [code]
    with pytest.raises(UserError, match=rf"/set/a\.tar: {message}"):
        copy(server, file)
    assert len(server.requests) == 1


def test_a_busy_server_is_tried_again(server: RangeServer, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [503, 429, 500]
    copy(server, file)
    assert file.read_bytes() == CONTENT
    err = capsys.readouterr().err
    assert f"{server.url}/set/a.tar: the server answers 503 Service Unavailable; trying again in 0 s" in err


def test_a_server_that_stays_busy_is_given_up(server: RangeServer, file: Path) -> None:
    server.answers = [500] * 9
    with pytest.raises(UserError, match=r"/set/a\.tar: the server answers 500 Internal Server Error, after 4 tries"):
        copy(server, file)
    assert len(server.requests) == 4


@pytest.mark.parametrize("way", ["ends", "is reset", "stalls"])
def test_a_lost_connection_is_tried_again(
    way: str, server: RangeServer, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(remote_folder_module, "READ_SECONDS", 0.5)
    server.cuts = [Cut(100_000, way), Cut(0, way)]
    copy(server, file)
    assert file.read_bytes() == CONTENT
    assert len(server.requests) == 3
    assert ("Timeout" in capsys.readouterr().err) == (way == "stalls")


def test_nobody_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(remote_folder_module, "PAUSES", (0.0,))
    monkeypatch.setattr(remote_folder_module, "LONG_PAUSES", (0.0,))
    with running_server() as gone:
        pass
    with pytest.raises(UserError, match=r"a\.tar: the connection failed \(.*\), after 2 tries"):
        copy(gone, file)


def test_a_file_that_does_not_end_is_cut_short(server: RangeServer, file: Path) -> None:
    server.files["/set/a.tar"] = bytes(40_000_000)
    copy(server, file, size=1000)
    assert 1000 < file.stat().st_size < 20_000_000


def test_a_full_disk_is_no_fault_of_the_connection(server: RangeServer, file: Path) -> None:
    file.symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"a\.tar: cannot be written to data\.cache_dir \(No space left"):
        copy(server, file)
    assert len(server.requests) == 1


def test_a_wait_ends_when_it_is_no_longer_wanted(
    server: RangeServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_folder_module, "PAUSES", (1000.0,))
    monkeypatch.setattr(remote_folder_module, "LONG_PAUSES", (1000.0,))
    stop = threading.Event()
    stop.set()
    server.answers = [503]
    with pytest.raises(StoppedError):
        RemoteFolder(f"{server.url}/set").copy("a.tar", file, len(CONTENT), stop)


def test_faults_of_the_program_are_not_tried_again(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RemoteFolder(f"{server.url}/set")
    monkeypatch.setattr(folder, "address", lambda file: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        folder.read("a.tar")
