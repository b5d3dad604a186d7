"""What each rank reads: rows, bytes, and how many different shards it must have at hand."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ifvit.data.audit.audited_shards import AuditedShards
from ifvit.data.audit.check import MAX_Z, Check, chance_check, not_judged
from ifvit.data.order import Integers

MAX_TOUCHED = 1 << 27  # bytes; one for each pair of rank and shard


class RankReading:
    """What `world_size` ranks read in a span of the stream. Shards are numbered through all sets."""

    def __init__(self, world_size: int, sets: Sequence[AuditedShards]) -> None:
        self.world_size = world_size
        self.shard_sizes = np.concatenate([shards.sizes for shards in sets])
        self.row_bytes = np.array([shards.row_bytes for shards in sets], np.float64)
        self.rows = np.zeros(world_size, np.int64)
        self.bytes_read = np.zeros(world_size)
        num_shards = len(self.shard_sizes)
        self.touched = np.zeros((world_size, num_shards), np.bool_) if world_size * num_shards <= MAX_TOUCHED else None

    def add(self, ranks: Integers, sets: Integers, shards: Integers) -> None:
        """For each row its rank, set and shard."""
        self.rows += np.bincount(ranks, minlength=self.world_size)
        self.bytes_read += np.bincount(ranks, self.row_bytes[sets], self.world_size)
        if self.touched is not None:
            self.touched[ranks, shards] = True

    def as_json(self) -> dict[str, Any]:
        """[least, most] over the ranks; what would take too much memory to count is left out."""
        numbers = {"rows": self.rows, "bytes_read": self.bytes_read.astype(np.int64)}
        if self.touched is not None:
            numbers["shards_touched"] = self.touched.sum(axis=1)
            numbers["bytes_of_shards_touched"] = np.array([self.shard_sizes[row].sum() for row in self.touched])
        return {name: [int(values.min()), int(values.max())] for name, values in numbers.items()}


class RankBalance:
    """The ranks' readings in the first `num_steps` steps, and in the first epoch of every set."""

    name = "ranks touch equally many shards"

    def __init__(self, world_size: int, sets: Sequence[AuditedShards], shares: Sequence[float], num_steps: int) -> None:
        self.world_size = world_size
        self.num_steps = num_steps
        self.sets = sets
        self.shares = shares  # of the stream that each set has
        self.first_steps = RankReading(world_size, sets)
        self.epoch = RankReading(world_size, sets)

    def touch_check(self) -> Check:
        """No rank touches many more or fewer shards in the first steps than the mean of all ranks.

        With l_k rows expected of shard k, q_k = exp(-l_k) is the chance to miss it, and the variance of the number of
        shards touched by n rows is sum q (1 - q) - (sum l q)^2 / n. The most extreme of W ranks may lie a little
        further out than MAX_Z: sqrt(MAX_Z^2 + 2 ln W).
        """
        name = f"{self.name} ({self.world_size} ranks)"
        if self.first_steps.touched is None:
            return not_judged(name, "too many ranks and shards to count")
        touched = self.first_steps.touched.sum(axis=1)
        num_rows = max(1, int(self.first_steps.rows[0]))
        expected_rows = np.concatenate(
            [
                num_rows * share * shards.num_samples_of / shards.num_samples
                for shards, share in zip(self.sets, self.shares, strict=True)
            ]
        )
        missed = np.exp(-expected_rows)
        variance = float((missed * (1 - missed)).sum()) - float((expected_rows * missed).sum()) ** 2 / num_rows
        extreme = float(np.abs(touched - touched.mean()).max()) / math.sqrt(max(1.0, variance))
        found = f"{touched.min():,} to {touched.max():,} in {self.num_steps:,} steps"
        max_z = math.sqrt(MAX_Z**2 + 2 * math.log(self.world_size))
        return chance_check(name, extreme, found, f"{touched.mean():,.1f}", max_z)
