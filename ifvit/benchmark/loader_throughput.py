"""Samples per second of the training loader and of plain webdataset on the same tars, interleaved in one process."""

import itertools
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ifvit.data.loader import BatchLoader
from ifvit.data.shard_set import ShardSet
from ifvit.data.training_data import TrainingData

PLAIN_SHARE = 20  # plain webdataset gets so much fewer batches in a window: it is that much slower
WARM_UP_BATCHES = 4


@dataclass
class Throughput:
    """One way to read."""

    name: str
    batches: Iterator[Any]
    batches_per_window: int
    batch_size: int
    windows: list[float] = field(default_factory=list)  # samples/s

    def run_window(self) -> None:
        start = time.perf_counter()
        for _ in range(self.batches_per_window):
            next(self.batches)
        self.windows.append(self.batches_per_window * self.batch_size / (time.perf_counter() - start))

    @property
    def samples_per_second(self) -> float:
        return statistics.median(self.windows)

    @property
    def spread(self) -> float:
        """(fastest - slowest window) / median."""
        return (max(self.windows) - min(self.windows)) / self.samples_per_second

    def ratio_to(self, other: "Throughput") -> float:
        """Median over the rounds of this window's speed / the other's beside it."""
        return statistics.median(own / theirs for own, theirs in zip(self.windows, other.windows, strict=True))


def measure_loader(
    shard_set: ShardSet, batch_size: int, windows: int, batches_per_window: int, on_window: Callable[[], object]
) -> tuple[list[Throughput], list[float]]:
    """Training's loader with and without crc32, then plain webdataset; and the peak memory after each round, in MB.

    Batches of `batch_size` come from one process, in training's global order; webdataset shuffles whole shards.
    """
    data = TrainingData((shard_set,))
    with ExitStack() as stack:
        ways = [
            Throughput(
                name,
                stack.enter_context(BatchLoader(data, 0, batch_size, 0.1, checks_crc32=checks_crc32)),
                batches_per_window,
                batch_size,
            )
            for name, checks_crc32 in (("ifvit", True), ("ifvit without crc32", False))
        ]
        plain = plain_batches(shard_set.folder, batch_size)
        ways.append(Throughput("plain webdataset", plain, max(1, batches_per_window // PLAIN_SHARE), batch_size))
        for way in ways:
            for _ in itertools.islice(way.batches, WARM_UP_BATCHES):
                pass
        memory = []
        for _ in range(windows):
            for way in ways:
                way.run_window()
                on_window()
            memory.append(peak_megabytes())
    return ways, memory


def plain_batches(folder: Path, batch_size: int) -> Iterator[dict[str, Any]]:
    """`WebDataset(...).decode().batched()` on the tars in `folder`, without end; all members are read and decoded.

    Its own collation refuses samples of different numbers of captions; these are joined by `joined`.
    """
    import webdataset

    tars = sorted(map(str, folder.glob("*.tar")))
    while True:
        tars_once = webdataset.WebDataset(tars, shardshuffle=len(tars), seed=0)
        yield from tars_once.decode().batched(batch_size, joined, partial=False)


def joined(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each member that some sample has an array where all have one of the same shape, else a list."""
    batch: dict[str, Any] = {}
    for name in dict.fromkeys(name for sample in samples for name in sample):
        values = [sample[name] for sample in samples if name in sample]
        shapes = {getattr(value, "shape", None) for value in values}
        is_array = len(values) == len(samples) and None not in shapes and len(shapes) == 1
        batch[name] = np.stack(values) if is_array else values
    return batch


def peak_megabytes() -> float:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
