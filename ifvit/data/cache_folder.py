"""The local picture of a remote shard folder: its files lie where ShardSet and SampleReader look for them.

samples.index has its full size from the start, sparse. A shard's part of it is written before its tar appears, and that
appears when all of it is there and has its digest. Several processes of one machine share the folder.
"""

import hashlib
import os
import re
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from itertools import accumulate
from pathlib import Path
from typing import Any

from ifvit.config.errors import UserError
from ifvit.data.remote_folder import RemoteFolder, StoppedError
from ifvit.data.remote_index import wrong_entry
from ifvit.data.shard_format import INDEX_FILE, NULL_FILE, SAMPLES_FILE, ShardFiles, index_size
from ifvit.data.shard_locks import ShardLocks
from ifvit.runtime.files import file_sha256, write_atomically

MAX_NULL_SIZE = 100_000_000
DONE_SECONDS = 10 * 365 * 86_400  # so much older than it is looks a shard that its last reader needs no more


class CacheFolder:
    """The files of `folder`, at most `cache_bytes` in all, and where they come from.

    `content` is that of the remote index.json, `index` what it says. Raises UserError where samples.index alone does
    not fit, or the folder cannot be written. What shards need beside it depends on who reads them.
    """

    def __init__(
        self, remote: RemoteFolder, folder: Path, content: bytes, index: Mapping[str, Any], cache_bytes: int
    ) -> None:
        self.remote = remote
        self.folder = folder
        self.cache_bytes = cache_bytes
        shards = index["shards"]
        self.sizes: list[int] = [shard["size"] for shard in shards]
        self.sha256: list[str] = [shard["sha256"] for shard in shards]
        self.part_sha256: list[str] = [shard["index_sha256"] for shard in shards]
        has_embeddings = index["text_storage"] == "embeddings"
        part_sizes = (index_size(shard["samples"], shard["prompts"], has_embeddings) for shard in shards)
        self.part_starts = list(accumulate(part_sizes, initial=0))  # in samples.index
        self.check_bound()
        self.checked_parts: set[int] = set()  # those of samples.index that this process has compared
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with closing(ShardLocks(folder)) as locks, locks.one_at_a_time():
                self.bring_small_files(content, index["null_prompt_embeds_sha256"])
        except OSError as error:
            raise self.unwritable(error) from error

    def unwritable(self, error: OSError) -> UserError:
        return UserError(f"data.cache_dir: cannot write to {self.folder} ({error.strerror})")

    def check_bound(self) -> None:
        if self.samples_index_size > self.cache_bytes:
            raise UserError(
                f"data.cache_bytes: is {self.cache_bytes:,}, but the index alone of {self.remote.name()} has "
                f"{self.samples_index_size:,} bytes; allow those, and more for the shards in use (all shards have "
                f"{sum(self.sizes):,})"
            )

    def bring_small_files(self, content: bytes, null_sha256: str) -> None:
        """All that is there from the start: index.json, null_prompt_embeds.npy and a samples.index without content."""
        for leftover in self.folder.glob(".*.tmp*"):  # of a process that was killed here
            leftover.unlink(missing_ok=True)
        if not self.holds(NULL_FILE, null_sha256):
            write_atomically(self.folder / NULL_FILE, self.read_null(null_sha256))
        if not self.holds(INDEX_FILE, hashlib.sha256(content).hexdigest()):
            write_atomically(self.folder / INDEX_FILE, content)
        samples_index = self.folder / SAMPLES_FILE
        if not samples_index.is_file() or samples_index.stat().st_size != self.samples_index_size:
            samples_index.unlink(missing_ok=True)
            with samples_index.open("wb") as file:
                file.truncate(self.samples_index_size)

    def holds(self, name: str, sha256: str) -> bool:
        path = self.folder / name
        return path.is_file() and file_sha256(path) == sha256

    @property
    def samples_index_size(self) -> int:
        """Bytes of samples.index once every shard has been here."""
        return self.part_starts[-1]

    def contents(self) -> dict[int, float]:
        """The shards that are here, or have arrived in part, and when each was last asked for."""
        found: dict[int, float] = {}
        for entry in os.scandir(self.folder):
            name = re.fullmatch(r"shard-(\d{6,})\.tar(?:\.partial)?", entry.name)
            if name and (shard := int(name[1])) < len(self.sizes):
                try:
                    found[shard] = entry.stat().st_mtime
                except FileNotFoundError:
                    continue  # removed meanwhile
        return found

    def tar(self, shard: int) -> Path:
        return ShardFiles(self.folder, shard).tar

    def partial(self, shard: int) -> Path:
        return self.tar(shard).with_suffix(".tar.partial")

    def has(self, shard: int) -> bool:
        """Whether the shard can be read; one that cannot is removed. To be asked by the only holder of its lock."""
        tar = self.tar(shard)
        is_here = tar.exists() and tar.stat().st_size == self.sizes[shard] and self.has_part(shard)
        if not is_here:
            tar.unlink(missing_ok=True)
        return is_here

    def has_part(self, shard: int) -> bool:
        """Whether samples.index has the part of the shard."""
        if shard not in self.checked_parts:
            start, stop = self.part_starts[shard : shard + 2]
            with (self.folder / SAMPLES_FILE).open("rb") as file:
                part = os.pread(file.fileno(), stop - start, start)
            if hashlib.sha256(part).hexdigest() == self.part_sha256[shard]:
                self.checked_parts.add(shard)
        return shard in self.checked_parts

    def reserve(self, shard: int) -> None:
        """Counts the shard among `contents` from now on. To be called `one_at_a_time`, by its only holder."""
        self.partial(shard).unlink(missing_ok=True)
        self.partial(shard).touch()

    def fetch(self, shard: int, stop: threading.Event) -> None:
        """Bring the shard, for which room is reserved: all but its name. To be called by the only holder of its lock.

        Raises UserError where the remote folder does not give it, or gives something else, or the disk is full.
        """
        files = ShardFiles(self.folder, shard)
        try:
            part_path = self.partial(shard)  # before the tar comes there
            part_size = self.part_starts[shard + 1] - self.part_starts[shard]
            self.copy_checked(files.index.name, part_path, part_size, self.part_sha256[shard], stop)
            part = part_path.read_bytes()
            if len(part) != part_size:
                raise wrong_entry(self.remote, shard)
            with (self.folder / SAMPLES_FILE).open("r+b") as file:
                os.pwrite(file.fileno(), part, self.part_starts[shard])
                os.fsync(file.fileno())
            self.checked_parts.add(shard)
            self.copy_checked(files.tar.name, self.partial(shard), self.sizes[shard], self.sha256[shard], stop)
        except BaseException as error:
            self.partial(shard).unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise self.unwritable(error) from error
            raise

    def accept(self, shard: int) -> None:
        """What was fetched can be read now. To be called `one_at_a_time`, so that `contents` misses nothing."""
        self.partial(shard).replace(self.tar(shard))

    def read_null(self, sha256: str) -> bytes:
        found = ""
        for _ in range(2):
            content = self.remote.read(NULL_FILE, MAX_NULL_SIZE)
            if (found := hashlib.sha256(content).hexdigest()) == sha256:
                return content
        raise self.other_content(NULL_FILE, found, sha256)

    def copy_checked(self, file: str, path: Path, size: int, sha256: str, stop: threading.Event) -> None:
        found = ""
        for _ in range(2):
            self.remote.copy(file, path, size, stop)
            with path.open("rb") as content:
                os.fsync(content.fileno())
                found = hashlib.file_digest(content, "sha256").hexdigest()
            if stop.is_set():
                raise StoppedError
            if found == sha256:
                return
        raise self.other_content(file, found, sha256)

    def other_content(self, file: str, found: str, sha256: str) -> UserError:
        return UserError(
            f"{self.remote.name(file)}: has sha256 {found}, index.json there says {sha256}, also when fetched again; "
            "upload it again, and index.json last"
        )

    def touch(self, shard: int, is_done: bool = False) -> None:
        """Notes that the shard is used now, or that this process needs it no more."""
        now = time.time() - DONE_SECONDS * is_done
        try:
            os.utime(self.tar(shard), (now, now))
        except FileNotFoundError:
            assert is_done, "only its readers keep a shard"

    def remove(self, shard: int) -> None:
        """To be called by the only holder of its lock."""
        self.tar(shard).unlink(missing_ok=True)
        self.partial(shard).unlink(missing_ok=True)
