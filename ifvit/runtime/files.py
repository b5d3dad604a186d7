"""Files that are either whole or absent, whatever happens to the process that writes them, and what is in them."""

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom, FileIO
from pathlib import Path

from ifvit.config.errors import UserError


def refuse_used_folder(folder: Path, option: str) -> None:
    """Raises UserError, naming the command line's `option`, where `folder` is a file or has anything in it."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{option} {folder}: is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{option} {folder}: is not empty; give another folder")


def make_readable(path: Path) -> None:
    """Give `path` the permissions any new file has; safetensors writes files that only their owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def file_sha256(path: Path) -> str:
    """Read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_line(path: Path, line: bytes) -> None:
    """Write `line`, which ends with a line feed, behind the last whole line of `path`. After an error, of a disk that
    is full say, nothing of it is there; where the disk does not even allow that, the next call sees to it."""
    # Opened each time: a line is in the file when this returns, and a file moved aside is never written to.
    with path.open("a+b", buffering=0) as file:
        end = end_of_lines(file)
        if end < file.seek(0, os.SEEK_END):
            file.truncate(end)
        try:
            while line:
                line = line[file.write(line) :]
        except OSError:
            with suppress(OSError):
                file.truncate(end)
            raise


def end_of_lines(file: FileIO) -> int:
    """The position behind the last line feed of `file`."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 1))
    if file.read() in (b"", b"\n"):
        return size
    file.seek(0)
    return file.read().rfind(b"\n") + 1


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path`: a reader, also after a crash, sees the old file or the new one, never a part."""
    with atomic_file(path) as file:
        file.write(content)


@contextmanager
def atomic_file(path: Path) -> Iterator[BufferedRandom]:
    """A file to write that is at `path` once all of it is on the disk; after an error nothing has changed there."""
    # Processes of several machines may write into one folder.
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}.{socket.gethostname()}")
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
