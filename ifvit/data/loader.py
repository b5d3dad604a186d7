"""This rank's rows of every global batch, read ahead by threads."""

import itertools
import queue
import resource
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from ifvit.config.errors import UserError
from ifvit.data.array_rows import MAX_OPEN_SHARDS
from ifvit.data.batch import Batch
from ifvit.data.batch_buffers import BatchBuffers
from ifvit.data.lane_order import LaneOrder
from ifvit.data.reader import SampleReader
from ifvit.data.remote_shards import LaneShards
from ifvit.data.sample_index import Integers
from ifvit.data.sample_stream import RankVisits, Visits
from ifvit.data.training_data import BATCHES_AHEAD, TrainingData


class BatchLoader:
    """Iterates, without end, over the batches of steps first_step, first_step + 1, ...

    The global batch of step s is the range [s * G, (s + 1) * G) of global positions, G = global_batch_size; rank r of W
    takes its rows r, r + W, r + 2 W, ... What stands there depends on (seed, position) alone.

    A batch's moments and text are views of memory that is used again: they hold until the next batch is asked for.
    """

    def __init__(
        self,
        data: TrainingData,
        seed: int,
        global_batch_size: int,
        caption_dropout_prob: float,
        rank: int = 0,
        world_size: int = 1,
        num_local_ranks: int = 1,
        first_step: int = 0,
        pin_memory: bool = False,
        checks_crc32: bool = True,
    ) -> None:
        if global_batch_size % world_size:
            raise UserError(
                f"train.global_batch_size: is {global_batch_size}, must be divisible by the {world_size} ranks"
            )
        self.data = data
        self.stream = data.stream(seed, global_batch_size)
        self.lanes = [
            LaneShards(
                order, shard_set, rank, world_size, num_local_ranks, data.rows_at_once(global_batch_size // world_size)
            )
            if isinstance(order, LaneOrder)
            else None
            for order, shard_set in zip(self.stream.orders, data.sets, strict=True)
        ]
        self.visits = RankVisits(self.stream, rank, world_size)
        self.caption_dropout_prob = caption_dropout_prob
        self.num_rows = global_batch_size // world_size
        max_open = max_open_shards(data.num_threads * len(data.sets))
        self.readers: queue.SimpleQueue[list[SampleReader]] = queue.SimpleQueue()
        for _ in range(data.num_threads):
            self.readers.put([SampleReader(shard_set, checks_crc32, max_open) for shard_set in data.sets])
        self.executor = ThreadPoolExecutor(data.num_threads, "batch loader", thread_setup(pin_memory))
        self.steps = itertools.count(first_step)
        self.ahead: deque[tuple[Future[Batch], BatchBuffers]] = deque()
        self.error: Exception | None = None
        self.is_closed = False
        buffers = [BatchBuffers(data.sets[0], self.num_rows, pin_memory) for _ in range(BATCHES_AHEAD + 1)]
        self.in_use = buffers.pop()  # those of the batch handed out last
        for each in buffers:
            self.read_ahead(each)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch. Raises what reading it met, also when asked again."""
        if self.is_closed:
            raise StopIteration
        if self.error is not None:
            raise self.error
        self.in_use.give_back()
        self.read_ahead(self.in_use)
        future, self.in_use = self.ahead.popleft()
        try:
            return future.result()
        except Exception as error:
            self.error = error
            raise

    def wait_for_first(self) -> None:
        """Until the first batch is there; shards may have to be fetched for it. Raises what reading it met."""
        self.ahead[0][0].result()

    def __enter__(self) -> "BatchLoader":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and close the shards."""
        self.is_closed = True
        for lanes in self.lanes:
            if lanes is not None:
                lanes.close()
        self.executor.shutdown(cancel_futures=True)
        while not self.readers.empty():
            for reader in self.readers.get():
                reader.close()

    def read_ahead(self, buffers: BatchBuffers) -> None:
        self.ahead.append((self.executor.submit(self.read_batch, next(self.steps), buffers), buffers))

    def read_batch(self, step: int, buffers: BatchBuffers) -> Batch:
        """This rank's rows of the global batch of `step`, in `buffers`."""
        visits = self.visits.of(step)
        sample_ids = np.empty(self.num_rows, np.int64)
        is_dropped = np.empty(self.num_rows, np.bool_)
        buffers.wait_until_free()
        readers = self.readers.get()
        try:
            for number, reader in enumerate(readers):
                rows = np.flatnonzero(visits.sets == number)
                sample_ids[rows], is_dropped[rows] = self.read_rows(number, reader, visits, rows, buffers)
        finally:
            self.readers.put(readers)
        has_embeddings = self.data.has_embeddings
        return Batch(
            moments=buffers.moments_tensor,
            prompt_embeds=buffers.text_tensor if has_embeddings else None,
            input_ids=None if has_embeddings else buffers.tensor(buffers.text.astype(np.int64)),
            is_dropped=buffers.tensor(is_dropped),
            sample_ids=buffers.tensor(sample_ids),
            global_rows=buffers.tensor(visits.positions - step * self.stream.global_batch_size),
        )

    def read_rows(
        self, number: int, reader: SampleReader, visits: Visits, rows: Integers, buffers: BatchBuffers
    ) -> tuple[Integers, NDArray[np.bool_]]:
        """The `rows` that are of set `number`, into `buffers`; their sample ids, and where the caption is dropped."""
        order, lanes = self.stream.orders[number], self.lanes[number]
        positions, samples = visits.own_positions[rows], visits.samples[rows]
        with ExitStack() as stack:
            if lanes is not None:
                stack.enter_context(lanes.need(positions, samples))
                stack.callback(reader.close)
            records = reader.shard_set.samples.records(samples)
            captions = order.caption_choices(positions, samples, records["num_prompts"])
            reader.read(samples, captions, buffers.moments, buffers.text, rows)
        return records["id"], order.is_dropped(positions, samples, self.caption_dropout_prob)


def max_open_shards(num_readers: int) -> int:
    """For each of several readers, so that all together leave most of the files that the process may open."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(MAX_OPEN_SHARDS, allowed // 4 // num_readers))


def thread_setup(pins_memory: bool) -> Callable[[], None] | None:
    """What a reading thread does first: a new thread would take GPU 0 for its own, and open a context there."""
    return partial(torch.cuda.set_device, torch.cuda.current_device()) if pins_memory else None
