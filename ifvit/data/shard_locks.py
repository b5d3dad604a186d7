"""Who uses which shard of a folder: locks of the system, which end with the process that holds them."""

import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ifvit.config.errors import UserError

LOCK_FILE = ".locks"
WHOLE_FOLDER = 1 << 40  # the byte that stands for what is done by one process at a time


class ShardLocks:
    """Shard n is byte n of one lock file: locked by any number of readers, or by one process that changes it.

    Each ShardLocks object has locks of its own, also within one process; only `one_at_a_time` tells threads apart.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = (folder / LOCK_FILE).open("a+b")
        self.one_thread = threading.Lock()

    def take_alone(self, shard: int) -> bool:
        """Whether nobody else holds `shard`; then nobody can, until `give_back` or `share`."""
        return self.lock(fcntl.F_WRLCK, shard)

    def share(self, shard: int) -> bool:
        """Whether nobody else changes `shard`; then nobody can, until `give_back`."""
        return self.lock(fcntl.F_RDLCK, shard)

    def give_back(self, shard: int) -> None:
        self.lock(fcntl.F_UNLCK, shard)

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Waits until no other thread or process is in such a block."""
        with self.one_thread:
            self.lock(fcntl.F_WRLCK, WHOLE_FOLDER, fcntl.F_OFD_SETLKW)
            try:
                yield
            finally:
                self.give_back(WHOLE_FOLDER)

    def lock(self, kind: int, byte: int, command: int = fcntl.F_OFD_SETLK) -> bool:
        try:
            fcntl.fcntl(self.file, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0))
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise UserError(
                f"data.cache_dir: the file system of {self.folder} gives no locks ({error.strerror}); use another"
            ) from error
        return True

    def close(self) -> None:
        """Give everything back."""
        self.file.close()
