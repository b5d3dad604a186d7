"""Shards at an address: how they are opened, and how a rank has those of its lanes there in time."""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ifvit.config.errors import UserError
from ifvit.data.cache_folder import CacheFolder
from ifvit.data.lane_order import LaneOrder
from ifvit.data.remote_folder import RemoteFolder
from ifvit.data.remote_index import parsed_index, set_bytes
from ifvit.data.sample_index import Integers
from ifvit.data.shard_cache import ShardCache
from ifvit.data.shard_format import INDEX_FILE
from ifvit.data.shard_set import ShardSet

PLANS_PER_BLOCK = 16  # how often, while a block is read, a lane looks ahead


def open_remote_shards(addresses: Sequence[str], cache_dir: str, cache_bytes: int) -> list[ShardSet]:
    """The shards at addresses such as https://host/folder/train; `cache_dir` gets those that are read.

    Raises UserError where there are none, they cannot be reached, or `cache_bytes` do not hold their index.
    """
    remotes = [RemoteFolder(address) for address in addresses]
    contents = [remote.read(INDEX_FILE) for remote in remotes]
    indices = [parsed_index(content, remote) for content, remote in zip(contents, remotes, strict=True)]
    rooms = shared_room(cache_bytes, [set_bytes(index) for index in indices])
    shard_sets = []
    for remote, content, index, room in zip(remotes, contents, indices, rooms, strict=True):
        folder = Path(cache_dir) / hashlib.sha256(content).hexdigest()[:16]
        shard_sets.append(ShardSet.open(folder, CacheFolder(remote, folder, content, index, room)))
    return shard_sets


def shared_room(room: int, sizes: Sequence[int]) -> list[int]:
    """How much of `room` bytes each of several sets of `sizes` bytes gets: as much, or what it has in all."""
    shares = [0] * len(sizes)
    for place, number in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        others = len(sizes) - place - 1
        shares[number] = room // (others + 1) if others == 0 else min(sizes[number], room // (others + 1))
        room -= shares[number]
    return shares


class LaneShards:
    """The shards that one rank's lanes are in and come to.

    Raises UserError where the cache cannot hold what `num_local_ranks` ranks, each with `num_rows` rows, read at the
    same time.
    """

    def __init__(
        self,
        order: LaneOrder,
        shard_set: ShardSet,
        rank: int = 0,
        world_size: int = 1,
        num_local_ranks: int = 1,
        num_rows: int | None = None,
    ) -> None:
        assert shard_set.cache is not None
        self.order = order
        self.samples = shard_set.samples
        self.rank = rank
        self.world_size = world_size
        check_room(order, shard_set.cache, world_size, num_local_ranks, num_rows)
        self.cache = ShardCache(shard_set.cache, num_local_ranks, announces=rank == 0)
        self.block_positions = order.window * order.num_lanes  # in so many positions every lane ends a block
        self.stride = max(1, self.block_positions // PLANS_PER_BLOCK)
        self.planned = -1
        self.planning = threading.Lock()

    @contextmanager
    def need(self, positions: Integers, samples: Integers) -> Iterator[None]:
        """In this block `samples`, which stand at `positions` of their set's order, can be read.

        After it their shards should be open nowhere: one that is removed keeps its bytes on the disk while it is open.
        """
        if len(positions):
            self.look_ahead(int(positions.min()), int(positions.max()))
        with self.cache.need(self.samples.shards_of(samples)):
            yield

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


def check_room(
    order: LaneOrder, folder: CacheFolder, world_size: int, num_local_ranks: int, num_rows: int | None = None
) -> None:
    """Raises UserError where `folder` cannot hold what ranks with `num_rows` rows each read at the same time."""
    room = folder.cache_bytes - folder.samples_index_size
    whole = sum(folder.sizes)

    def bytes_in_use(order: LaneOrder) -> int:
        return min(num_local_ranks * order.max_bytes_in_use(folder.sizes, world_size, num_rows), whole)

    if (in_use := bytes_in_use(order)) <= room:
        return
    num_lanes = order.num_lanes
    while num_lanes > world_size and bytes_in_use(order.with_lanes(num_lanes)) > room:
        num_lanes //= 2
    fewer = f"set data.num_lanes={num_lanes} or less" if num_lanes > world_size else "make smaller shards"
    lanes = order.lanes_of_rank(world_size)
    raise UserError(
        f"data.cache_bytes: is {folder.cache_bytes:,}; the index of {folder.remote.name()} takes "
        f"{folder.samples_index_size:,}, and the shards in use at the same time up to {in_use:,} "
        f"(ranks on a machine: {num_local_ranks}; lanes of each: {lanes}; shards of a lane for the {num_rows or lanes} "
        f"rows that a rank reads at once: at most {order.max_shards_of_lane(world_size, num_rows)}; bytes of a shard: "
        f"at most {max(folder.sizes):,}); allow {folder.samples_index_size + min(2 * in_use, whole):,}, or {fewer}"
    )
