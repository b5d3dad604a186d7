"""Who may write: one process in a folder of scenes, one at a time in a stage, one for each shard.

All locks are the system's: they end with the process that holds them, however it ends.
"""

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO

from ifvit.config.errors import UserError, printable

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
        if not try_lock(lock):
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise UserError(f"{folder}: {holder} is writing here; wait for it or use another {option}")
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield


@contextmanager
def one_at_a_time(path: Path, doing: str) -> Iterator[None]:
    """Holds the lock file `path`; waits, and says so, while another process does what this one is about to do."""
    with path.open("a") as lock:
        if not try_lock(lock):
            print(f"waiting: another process {doing} ({printable(str(path.parent))})", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def try_lock(file: IO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise no_locks(file.name, error) from error
    return True


class Claims:
    """Who makes which unit of a stage: unit n is byte n of one lock file, locked by the process that makes it.

    POSIX locks: NFS has them too, and they leave nothing behind. They tell processes apart, not threads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("ab")

    def __enter__(self) -> "Claims":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()  # and with it go the locks

    def take(self, unit: int) -> bool:
        """Whether this process may make `unit` now; another one may not until `give_back`."""
        return self.lock(1, unit)

    def lock(self, length: int, start: int) -> bool:
        """Bytes start .. start + length, all from `start` on where `length` is 0."""
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise no_locks(self.path, error) from error
        return True

    def take_all(self) -> bool:
        """Whether no other process makes any unit now; then none can until this is closed."""
        return self.lock(0, 0)

    def give_back(self, unit: int) -> None:
        fcntl.lockf(self.file, fcntl.LOCK_UN, 1, unit)


def no_locks(path: object, error: OSError) -> UserError:
    return UserError(f"{path}: its file system gives no locks ({error.strerror}); use one that does, or mount it so")
