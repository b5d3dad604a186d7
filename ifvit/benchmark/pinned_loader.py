"""Do batches reach a GPU whole, although the memory that they are read into is used again?"""

import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import torch

from ifvit.benchmark.synthetic_shards import write_synthetic_shards
from ifvit.config.schema import ModelConfig
from ifvit.data.batch import Batch
from ifvit.data.loader import BatchLoader
from ifvit.data.shard_set import ShardSet
from ifvit.data.training_data import TrainingData

NUM_SAMPLES, BATCH_SIZE, NUM_KEPT = 128, 32, 4
DELAY_SIZE, NUM_DELAYS = 2048, 20  # matrix products that copies to the GPU wait behind


def check_loader(device: torch.device, num_batches: int) -> dict[str, Any]:
    """Batches that are copied behind a queue of slow kernels, compared with the same ones in plain memory.

    Next batches are asked for before those copies have begun.
    """
    with tempfile.TemporaryDirectory(prefix="ifvit-loader-") as folder:
        write_synthetic_shards(Path(folder), ModelConfig(), "embeddings", NUM_SAMPLES)
        data = TrainingData((ShardSet.open(folder),))
        is_cuda = device.type == "cuda"
        matrix = torch.eye(DELAY_SIZE, device=device)
        pending: deque[tuple[Batch, Batch]] = deque()
        differing = 0
        start = time.perf_counter()
        with (
            BatchLoader(data, 0, BATCH_SIZE, 0.1, pin_memory=is_cuda) as pinned,
            BatchLoader(data, 0, BATCH_SIZE, 0.1) as plain,
        ):
            for _ in range(num_batches):
                for _ in range(NUM_DELAYS * is_cuda):
                    matrix = matrix @ matrix
                pending.append((next(pinned).to(device), next(plain).to("cpu")))
                if len(pending) > NUM_KEPT:
                    differing += not are_equal(*pending.popleft())
            differing += sum(not are_equal(*pair) for pair in pending)
        seconds = time.perf_counter() - start
    return {
        "batches": num_batches,
        "samples_per_second": num_batches * BATCH_SIZE / seconds,
        "failure": f"{differing} batches are not what was read" if differing else None,
    }


def are_equal(left: Batch, right: Batch) -> bool:
    pairs = [(value, getattr(right, name)) for name, value in vars(left).items() if value is not None]
    return all(torch.equal(value.cpu(), other) for value, other in pairs)
