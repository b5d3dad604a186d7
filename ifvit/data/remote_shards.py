"""Shards at an address: how they are opened, and how a rank has those of its lanes there in time."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ifvit.config.errors import UserError
from ifvit.data.cache_folder import CacheFolder
from ifvit.data.lane_order import LaneOrder
from ifvit.data.remote_folder import RemoteFolder
from ifvit.data.sample_index import Integers, SampleIndex
from ifvit.data.shard_cache import ShardCache
from ifvit.data.shard_format import INDEX_FILE
from ifvit.data.shard_set import ShardSet

PLANS_PER_BLOCK = 16  # how often, while a block is read, a lane looks ahead


def is_address(location: str) -> bool:
    """Whether `location` is no path of this machine."""
    return "://" in location


def folder_address(root: str, split: str) -> str:
    """The address of the folder of `split` below `root`, which may end in a signature (?...)."""
    path, mark, query = root.partition("?")
    return f"{path.rstrip('/')}/{split}{mark}{query}"


def open_remote_shards(location: str, cache_dir: str, cache_bytes: int) -> tuple[ShardSet, CacheFolder]:
    """The shards at an address such as https://host/folder/train, and the folder of this machine that they come to.

    Raises UserError where there are none, they cannot be reached, or `cache_bytes` do not hold the largest shard.
    """
    remote = RemoteFolder(location)
    content = remote.read(INDEX_FILE)
    folder = Path(cache_dir) / hashlib.sha256(content).hexdigest()[:16]
    cache_folder = CacheFolder(remote, folder, content, cache_bytes)
    return ShardSet.open(folder, has_all_tars=False), cache_folder


class LaneShards:
    """The shards that one rank's lanes are in and come to.

    Raises UserError where the cache cannot hold all that the lanes of `num_local_ranks` ranks are in at the same time.
    """

    def __init__(
        self,
        order: LaneOrder,
        samples: SampleIndex,
        folder: CacheFolder,
        rank: int = 0,
        world_size: int = 1,
        num_local_ranks: int = 1,
    ) -> None:
        self.order = order
        self.samples = samples
        self.rank = rank
        self.world_size = world_size
        check_room(order, folder, world_size, num_local_ranks)
        self.cache = ShardCache(folder, num_local_ranks, announces=rank == 0)
        self.block_positions = order.window * order.num_lanes  # in so many positions every lane ends a block
        self.stride = max(1, self.block_positions // PLANS_PER_BLOCK)
        self.planned = -1
        self.planning = threading.Lock()

    @contextmanager
    def need(self, positions: Integers, samples: Integers) -> Iterator[frozenset[int]]:
        """In this block `samples`, which stand at `positions` of their set's order, can be read.

        The value is all shards that may be kept open until the next such block.
        """
        if len(positions):
            self.look_ahead(int(positions.min()), int(positions.max()))
        with self.cache.need(self.samples.shards_of(samples)) as shards:
            yield shards

    def look_ahead(self, first: int, last: int) -> None:
        """Have the cache fetch what the lanes need up to the end of their next blocks."""
        with self.planning:
            if last // self.stride <= self.planned:
                return
            self.planned = last // self.stride
            # From a little earlier on: another thread may still read the batch before.
            start = max(0, first - self.stride)
            stop = last + self.block_positions
            self.cache.prefetch(self.order.upcoming_shards(start, stop, self.rank, self.world_size))

    def close(self) -> None:
        self.cache.close()


def check_room(order: LaneOrder, folder: CacheFolder, world_size: int, num_local_ranks: int) -> None:
    in_use = min(num_local_ranks * order.max_bytes_in_use(folder.sizes, world_size), sum(folder.sizes))
    room = folder.cache_bytes - folder.samples_index_size
    if in_use > room:
        raise UserError(
            f"data.cache_bytes: is {folder.cache_bytes:,}; the index of {folder.remote.name()} takes "
            f"{folder.samples_index_size:,}, and the shards in use at the same time up to {in_use:,} with "
            f"{order.num_lanes} lanes and {num_local_ranks} ranks on a machine; allow "
            f"{folder.samples_index_size + 2 * in_use:,}, or set a lower data.num_lanes"
        )
