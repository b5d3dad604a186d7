"""This rank's rows of every global batch, read ahead by threads."""

import itertools
import queue
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np

from ifvit.config.errors import UserError
from ifvit.data.batch import Batch
from ifvit.data.batch_buffers import BatchBuffers
from ifvit.data.mixture import Mixture
from ifvit.data.order import SampleOrder
from ifvit.data.reader import SampleReader
from ifvit.data.training_data import TrainingData
from ifvit.runtime.seeding import derived_seed

NUM_THREADS = 2  # reading and crc32 run outside the interpreter's lock
BATCHES_AHEAD = 3


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
        first_step: int = 0,
        pin_memory: bool = False,
        checks_crc32: bool = True,
    ) -> None:
        if global_batch_size % world_size:
            raise UserError(
                f"train.global_batch_size: is {global_batch_size}, must be divisible by the {world_size} ranks"
            )
        self.data = data
        self.mixture = Mixture(data.weights, seed)
        self.orders = [
            SampleOrder(shard_set.num_samples, derived_seed(seed, "set of the mixture", number) if number else seed)
            for number, shard_set in enumerate(data.sets)
        ]
        self.global_batch_size = global_batch_size
        self.caption_dropout_prob = caption_dropout_prob
        self.rank, self.world_size = rank, world_size
        self.num_rows = global_batch_size // world_size
        self.readers: queue.SimpleQueue[list[SampleReader]] = queue.SimpleQueue()
        for _ in range(NUM_THREADS):
            self.readers.put([SampleReader(shard_set, checks_crc32) for shard_set in data.sets])
        self.executor = ThreadPoolExecutor(NUM_THREADS, "batch loader")
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

    def __enter__(self) -> "BatchLoader":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and close the shards."""
        self.is_closed = True
        self.executor.shutdown(cancel_futures=True)
        while not self.readers.empty():
            for reader in self.readers.get():
                reader.close()

    def read_ahead(self, buffers: BatchBuffers) -> None:
        self.ahead.append((self.executor.submit(self.read_batch, next(self.steps), buffers), buffers))

    def read_batch(self, step: int, buffers: BatchBuffers) -> Batch:
        """This rank's rows of the global batch of `step`, in `buffers`."""
        global_rows = np.arange(self.rank, self.global_batch_size, self.world_size)
        sets, positions = self.mixture.split(step * self.global_batch_size + global_rows)
        sample_ids = np.empty(self.num_rows, np.int64)
        is_dropped = np.empty(self.num_rows, np.bool_)
        buffers.wait_until_free()
        readers = self.readers.get()
        try:
            for order, reader, number in zip(self.orders, readers, itertools.count(), strict=False):
                rows = np.flatnonzero(sets == number)
                own = positions[rows]
                samples = order.samples(own)
                records = reader.shard_set.samples.records(samples)
                captions = order.caption_choices(own, samples, records["num_prompts"])
                reader.read(samples, captions, buffers.moments, buffers.text, rows)
                sample_ids[rows] = records["id"]
                is_dropped[rows] = order.is_dropped(own, samples, self.caption_dropout_prob)
        finally:
            self.readers.put(readers)
        has_embeddings = self.data.has_embeddings
        return Batch(
            moments=buffers.moments_tensor,
            prompt_embeds=buffers.text_tensor if has_embeddings else None,
            input_ids=None if has_embeddings else buffers.tensor(buffers.text.astype(np.int64)),
            is_dropped=buffers.tensor(is_dropped),
            sample_ids=buffers.tensor(sample_ids),
            global_rows=buffers.tensor(global_rows),
        )
