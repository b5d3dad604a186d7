"""What tests ask a set of shards for."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifvit.data.shard_set import ShardSet


def stored_records(shard_set: ShardSet) -> NDArray[Any]:
    """The index's records of all samples."""
    return shard_set.samples.records(np.arange(shard_set.num_samples))


def stored_ids(shard_set: ShardSet) -> list[int]:
    return stored_records(shard_set)["id"].tolist()


def num_open_files() -> int:
    """Of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))
