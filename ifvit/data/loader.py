"""This rank's rows of every global batch, read ahead by one thread."""

import itertools
import queue
import threading
from collections.abc import Iterator
from types import TracebackType

import numpy as np
import torch

from ifvit.config.errors import UserError
from ifvit.data.batch import Batch
from ifvit.data.order import SampleOrder
from ifvit.data.reader import SampleReader
from ifvit.data.shard_format import FLOAT
from ifvit.data.shard_set import ShardSet

BATCHES_AHEAD = 2


class BatchLoader:
    """Iterates, without end, over the batches of steps first_step, first_step + 1, ...

    The global batch of step s is the range [s * G, (s + 1) * G) of global positions, G = global_batch_size; rank r of W
    takes its rows [r * G / W, (r + 1) * G / W). What stands there depends on (seed, position) alone.
    """

    def __init__(
        self,
        shard_set: ShardSet,
        seed: int,
        global_batch_size: int,
        caption_dropout_prob: float,
        rank: int = 0,
        world_size: int = 1,
        first_step: int = 0,
    ) -> None:
        if global_batch_size % world_size:
            raise UserError(
                f"train.global_batch_size: is {global_batch_size}, must be divisible by the {world_size} ranks"
            )
        self.shard_set = shard_set
        self.order = SampleOrder(shard_set.num_samples, seed)
        self.reader = SampleReader(shard_set)
        self.global_batch_size = global_batch_size
        self.caption_dropout_prob = caption_dropout_prob
        self.rank = rank
        self.num_rows = global_batch_size // world_size
        self.queue: queue.Queue[Batch | Exception] = queue.Queue(BATCHES_AHEAD)
        self.closing = threading.Event()
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self.read_ahead, args=(first_step,), name="batch loader", daemon=True)
        self.thread.start()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch. Raises what the reading thread met, also when asked again."""
        if self.closing.is_set():
            raise StopIteration
        if self.error is None:
            item = self.queue.get()
            if isinstance(item, Batch):
                return item
            self.error = item
        raise self.error

    def __enter__(self) -> "BatchLoader":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and close the shards."""
        self.closing.set()
        self.thread.join()
        self.reader.close()

    def read_ahead(self, first_step: int) -> None:
        item: Batch | Exception
        for step in itertools.count(first_step):
            try:
                item = self.read_batch(step)
            except Exception as error:  # handed to the consumer, whose thread can act on it
                item = error
            while not self.closing.is_set():
                try:
                    self.queue.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self.closing.is_set() or isinstance(item, Exception):
                return

    def read_batch(self, step: int) -> Batch:
        """This rank's rows of the global batch of `step`."""
        first = step * self.global_batch_size + self.rank * self.num_rows
        positions = np.arange(first, first + self.num_rows, dtype=np.int64)
        samples = self.order.samples(positions)
        captions = self.order.caption_choices(positions, samples, self.shard_set.table.num_prompts[samples])
        shapes = self.shard_set.shapes
        moments = np.empty((self.num_rows, *shapes.moments), FLOAT)
        has_embeddings = self.shard_set.has_embeddings
        prompt_embeds = np.empty((self.num_rows, *shapes.prompt_embeds), FLOAT) if has_embeddings else None
        input_ids = None if has_embeddings else np.empty((self.num_rows, shapes.num_text_tokens), np.int64)
        for row, (sample, caption) in enumerate(zip(samples.tolist(), captions.tolist(), strict=True)):
            self.reader.read_moments(sample, moments[row])
            if prompt_embeds is not None:
                self.reader.read_prompt_embeds(sample, caption, prompt_embeds[row])
            if input_ids is not None:
                input_ids[row] = self.reader.read_input_ids(sample)[caption]
        return Batch(
            moments=torch.from_numpy(moments),
            prompt_embeds=None if prompt_embeds is None else torch.from_numpy(prompt_embeds),
            input_ids=None if input_ids is None else torch.from_numpy(input_ids),
            is_dropped=torch.from_numpy(self.order.is_dropped(positions, samples, self.caption_dropout_prob)),
            sample_ids=torch.from_numpy(self.shard_set.table.ids[samples]),
        )
