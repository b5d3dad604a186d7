"""The shards of a remote folder, on this machine when they are needed, and never more bytes than allowed.

A few threads fetch what is needed now, and then what will be needed next, the most urgent first.
"""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np

from ifvit.config.errors import UserError
from ifvit.data.cache_folder import CacheFolder
from ifvit.data.remote_folder import StoppedError
from ifvit.data.sample_index import Integers
from ifvit.data.shard_locks import ShardLocks
from ifvit.runtime.progress import Progress

NUM_THREADS = 8
POLL_SECONDS = 0.05  # between looks at what other processes do
ROOM_SECONDS = 60.0  # so long what is needed now waits for room
CLOSE_SECONDS = 5.0


class ShardCache:
    """Fetches shards into `folder`, for one of `num_local_ranks` processes that share it.

        cache.prefetch(shards)  # from time to time: what will be needed next
        with cache.need(shards):
            ...  # they can be read

    Any thread may call this. A shard that somebody reads, here or in another process, is not removed.
    """

    def __init__(self, folder: CacheFolder, num_local_ranks: int = 1, announces: bool = True) -> None:
        self.folder = folder
        self.locks = ShardLocks(folder.folder)
        self.sizes = folder.sizes
        self.num_bytes = folder.cache_bytes - folder.samples_index_size
        holds_all = sum(self.sizes) <= self.num_bytes
        self.num_bytes_of_rank = self.num_bytes if holds_all else self.num_bytes // num_local_ranks
        self.changed = threading.Condition()  # and the lock of all that follows
        self.readers: Counter[int] = Counter()  # how many `need` blocks want a shard
        self.held: set[int] = set()  # shards that can be read: locked for this process
        self.busy: set[int] = set()  # those that a thread is fetching or removing
        self.urgent: dict[int, None] = {}  # to be fetched now, what was asked for first in front
        self.wanted: dict[int, int] = {}  # to be fetched next: shard -> place in the list
        self.settled: set[int] = set()  # of those wanted: fetched, or there was no room
        self.faults: dict[int, Exception] = {}
        self.shows_progress = announces  # of the first shards, which training waits for
        self.stop = threading.Event()
        if announces:
            print(
                f"{folder.remote.name()}: shards are kept in {folder.folder}, at most {folder.cache_bytes:,} bytes",
                file=sys.stderr,
                flush=True,
            )
        self.threads = [threading.Thread(target=self.work, name="shard cache", daemon=True) for _ in range(NUM_THREADS)]
        for thread in self.threads:
            thread.start()

    def prefetch(self, shards: Sequence[int] | Integers) -> None:
        """From now on these are wanted, the most urgent first, as many as fit; what was wanted before is not."""
        with self.changed:
            former, self.wanted = self.wanted, {int(shard): place for place, shard in enumerate(shards)}
            for shard in former.keys() - self.wanted.keys():
                self.folder.touch(shard, is_done=True)
                self.release(shard)
            self.settled.clear()
            self.changed.notify_all()

    @contextmanager
    def need(self, shards: Sequence[int] | Integers) -> Iterator[None]:
        """In this block the shards, and their parts of samples.index, can be read. Waits until they can.

        Raises what fetching met, a UserError where a shard is not to be had.
        """
        numbers = set(np.unique(shards).tolist())
        with self.changed:
            self.readers.update(numbers)
            self.urgent.update(dict.fromkeys(sorted(numbers - self.held)))
            self.changed.notify_all()
        try:
            self.wait_for(numbers)
            yield
        finally:
            with self.changed:
                self.readers.subtract(numbers)
                for shard in numbers:
                    if not self.readers[shard]:
                        del self.readers[shard]
                        self.urgent.pop(shard, None)
                    if shard not in self.wanted:
                        self.release(shard)

    def close(self) -> None:
        """End the threads, and the waits of others; shards stay for the next start."""
        self.stop.set()
        with self.changed:
            self.changed.notify_all()
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if not any(thread.is_alive() for thread in self.threads):  # otherwise one still writes what it has locked
            with self.changed:
                self.locks.close()

    def wait_for(self, shards: set[int]) -> None:
        with self.changed, self.start_progress(len(shards - self.held)) as progress:
            total = progress.total if progress else 0
            while missing := shards - self.held:
                for shard in shards & self.faults.keys():
                    raise self.faults[shard]
                if self.stop.is_set():
                    raise StoppedError
                if progress:
                    progress.advance(total - len(missing) - progress.done)
                self.changed.wait()
            if progress:
                progress.advance(total - progress.done)

    def start_progress(self, num_missing: int) -> Progress | nullcontext[None]:
        """For the shards that training waits for before it begins; later ones are fetched ahead."""
        if not (self.shows_progress and num_missing):
            return nullcontext()
        self.shows_progress = False
        return Progress(num_missing, "fetching shards", unit="shards")

    def release(self, shard: int) -> None:
        """Let others remove the shard, unless it is read here. With `changed`."""
        if shard in self.held and not self.readers[shard] and not self.stop.is_set():
            self.held.discard(shard)
            self.locks.give_back(shard)

    def work(self) -> None:
        """What each thread does until the cache is closed."""
        while (shard := self.next_shard()) is not None:
            fault: Exception | None = None
            is_here = False
            try:
                is_here = self.obtain(shard)
            except StoppedError:
                pass
            except OSError as error:
                fault = self.folder.unwritable(error)
            except Exception as error:  # for whoever needs the shard
                fault = error
            with self.changed:
                self.busy.discard(shard)
                self.settled.add(shard)
                if is_here:
                    self.held.add(shard)
                    self.urgent.pop(shard, None)
                    self.release(shard)  # one that was only wanted: nobody shall wait for room because of it
                elif fault is not None and (shard in self.urgent or not isinstance(fault, UserError)):
                    self.faults[shard] = fault
                self.changed.notify_all()

    def next_shard(self) -> int | None:
        """The one that a thread shall fetch next, as soon as there is any. None at the end."""
        with self.changed:
            while not self.stop.is_set():
                for shard in self.to_fetch():
                    if not (shard in self.busy or shard in self.held or shard in self.faults):
                        self.busy.add(shard)
                        return shard
                self.changed.wait()
        return None

    def to_fetch(self) -> Iterator[int]:
        """What is needed now, then as much of what is wanted as this rank may keep."""
        yield from self.urgent
        num_bytes = 0
        for shard in self.wanted:
            num_bytes += self.sizes[shard]
            if num_bytes > self.num_bytes_of_rank:
                return
            if shard not in self.settled:
                yield shard

    def obtain(self, shard: int) -> bool:
        """Bring the shard unless it is here, and lock it for reading. False: no room for one that is not urgent."""
        deadline = time.monotonic() + ROOM_SECONDS
        while not self.stop.is_set():
            if self.locks.take_alone(shard):
                is_here = False
                try:
                    is_here = self.folder.has(shard) or self.brought(shard)
                finally:
                    if not is_here:
                        self.locks.give_back(shard)
                if is_here:
                    self.folder.touch(shard)
                    return self.locks.share(shard)
                if shard not in self.urgent:
                    return False
                if time.monotonic() > deadline:
                    raise self.no_room(shard)
            elif self.locks.share(shard):  # others read it, or look whether it is here
                if self.folder.tar(shard).exists():
                    self.folder.touch(shard)
                    return True
                self.locks.give_back(shard)
            self.stop.wait(POLL_SECONDS)
        raise StoppedError

    def brought(self, shard: int) -> bool:
        """Whether the shard has been fetched; otherwise there is no room."""
        with self.locks.one_at_a_time():
            if not self.make_room(shard):
                return False
            self.folder.reserve(shard)
        self.folder.fetch(shard, self.stop)
        with self.locks.one_at_a_time():
            self.folder.accept(shard)
        return True

    def make_room(self, shard: int) -> bool:
        """Remove others until there is room for `shard`: those that nobody wants any more, then those wanted last."""
        wanted = self.wanted
        last_used = self.folder.contents()
        last_used.pop(shard, None)
        num_bytes = self.sizes[shard] + sum(self.sizes[other] for other in last_used)
        place = -1 if shard in self.urgent else wanted.get(shard, len(wanted))
        for other in sorted(last_used, key=lambda other: (-wanted.get(other, len(wanted)), last_used[other])):
            if num_bytes <= self.num_bytes or wanted.get(other, len(wanted)) <= place:
                break
            if self.removed(other):
                num_bytes -= self.sizes[other]
        return num_bytes <= self.num_bytes or (place < 0 and self.bytes_of_rank(shard) <= self.num_bytes_of_rank)

    def bytes_of_rank(self, shard: int) -> int:
        """What this rank has with `shard`: another run that reads from the same folder must not stop this one."""
        with self.changed:
            return sum(self.sizes[each] for each in {shard} | self.held | (self.busy & self.urgent.keys()))

    def removed(self, shard: int) -> bool:
        """Whether the shard could be removed: nobody reads or fetches it."""
        with self.changed:
            if shard in self.busy or self.readers[shard]:
                return False
            self.busy.add(shard)
            self.held.discard(shard)
        try:
            if is_alone := self.locks.take_alone(shard):
                self.folder.remove(shard)
            self.locks.give_back(shard)
        finally:
            with self.changed:
                self.busy.discard(shard)
                self.changed.notify_all()
        return is_alone

    def no_room(self, shard: int) -> UserError:
        return UserError(
            f"data.cache_bytes: no room for {self.folder.tar(shard)} ({self.sizes[shard]:,} bytes) for "
            f"{ROOM_SECONDS:g} s: all others of at most {self.folder.cache_bytes:,} bytes are being read; allow more"
        )
