"""Shards of random numbers, to measure reading with: the files of real ones, without images or encoders."""

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifvit.config.schema import ModelConfig
from ifvit.data.shard_content import ShardContent, StoredSample
from ifvit.data.shard_format import FLOAT, IDS, SampleShapes, ShardFiles
from ifvit.data.shard_index import write_shard_index

POOL = 1 << 24  # numbers that the arrays are cut from at random places: drawing them all would take longer than writing
IDENTITY = {"name": "synthetic", "sha256": "", "random": True, "tokenizer": "synthetic", "tokenizer_sha256": ""}


def write_synthetic_shards(
    folder: Path,
    model: ModelConfig,
    text_storage: str,
    num_samples: int,
    num_prompts: int = 5,
    samples_per_shard: int = 1000,
    on_samples: Callable[[int], object] = lambda count: None,
) -> None:
    """`num_samples` samples of the shapes that `model` has, each with `num_prompts` captions."""
    shapes = SampleShapes(model.in_channels, model.sample_size, model.num_text_tokens, model.text_hidden_size)
    random = np.random.default_rng(0)
    pool = random.standard_normal(POOL, np.float32).astype(FLOAT)

    def cut(shape: tuple[int, ...]) -> NDArray[np.float16]:
        size = int(np.prod(shape))
        start = int(random.integers(POOL - size))
        return pool[start : start + size].reshape(shape)

    def sample(number: int) -> StoredSample:
        return StoredSample(
            number,
            [f"caption {caption} of sample {number}" for caption in range(num_prompts)],
            cut(shapes.moments),
            random.integers(0, 49408, shapes.input_ids(num_prompts)).astype(IDS),
            cut((num_prompts, *shapes.prompt_embeds)) if text_storage == "embeddings" else None,
        )

    shards: list[dict[str, Any]] = []
    for first in range(0, num_samples, samples_per_shard):
        files = ShardFiles(folder, len(shards))
        last = min(first + samples_per_shard, num_samples)
        with tarfile.open(files.tar, "w", format=tarfile.USTAR_FORMAT) as tar:
            content = ShardContent(tar)
            for number in range(first, last):
                content.add(sample(number))
        index = content.index_bytes()
        files.index.write_bytes(index)
        with files.tar.open("rb") as tar_file:
            digest = hashlib.file_digest(tar_file, "sha256")
        shards.append(
            {
                "tar": files.tar.name,
                "samples": last - first,
                "prompts": content.num_prompts,
                "size": files.tar.stat().st_size,
                "sha256": digest.hexdigest(),
                "index_sha256": hashlib.sha256(index).hexdigest(),
            }
        )
        on_samples(last - first)
    described = {
        "split": folder.name,
        "text_storage": text_storage,
        "scaling_factor": 1.0,
        "measured_scaling_factor": 1.0,
        "autoencoder": IDENTITY,
        "text_encoder": IDENTITY,
    }
    write_shard_index(folder, shards, shapes, cut(shapes.prompt_embeds), described)
