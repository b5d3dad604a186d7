"""One writer at a time in a folder of shards, scenes or encoders."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ifvit.config.errors import UserError

LOCK_FILE = ".lock"


@contextmanager
def only_writer(folder: Path, option: str) -> Iterator[None]:
    """Holds the folder, made where it is missing, for this process.

    Raises UserError, naming `option` where it cannot be written, and naming the process that holds it already.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK_FILE).open("a+")
    except OSError as error:
        raise UserError(f"{option}: cannot write to {folder} ({error.strerror})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise UserError(f"{folder}: {holder} is writing here; wait for it or use another {option}") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
