"""The samples of a held-out split that the validation loss is measured on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ifvit.config.data_section import DataConfig
from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.data.batch import Batch
from ifvit.data.batch_buffers import BatchBuffers
from ifvit.data.reader import SampleReader
from ifvit.data.sample_index import Integers
from ifvit.data.shard_check import check_shards
from ifvit.data.shard_format import INDEX_FILE
from ifvit.data.shard_set import ShardSet


class ValidationSet:
    """At most `num_samples` of the samples in `shard_set`, spread evenly over it, each with its first caption."""

    def __init__(self, shard_set: ShardSet, num_samples: int) -> None:
        self.shard_set = shard_set
        count = min(num_samples, shard_set.num_samples)
        self.places: Integers = np.arange(count, dtype=np.int64) * shard_set.num_samples // count  # in the split

    def __len__(self) -> int:
        return len(self.places)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        shapes = self.shard_set.shapes
        return shapes.latent_channels, shapes.sample_size, shapes.sample_size

    def check(
        self,
        recipe: Recipe,
        autoencoder_identity: Mapping[str, Any] | None = None,
        text_encoder_identity: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises UserError where the shards were made with other values than the recipe's, or by other encoders.

        Latents are stored unscaled: a split may have a measured scaling factor of its own.
        """
        unscaled = recipe.model_copy(update={"encoders": recipe.encoders.model_copy(update={"scaling_factor": None})})
        split = recipe.data.validation_split
        check_shards(
            unscaled,
            self.shard_set,
            autoencoder_identity,
            text_encoder_identity,
            split=split,
            split_field="data.validation_split",
        )

    def read(self, reader: SampleReader, numbers: Integers) -> Batch:
        """The samples with these numbers, 0..len - 1, as rows. Raises UserError where one is damaged."""
        buffers = BatchBuffers(self.shard_set, len(numbers))
        samples, captions = self.places[numbers], np.zeros_like(numbers)
        reader.read(samples, captions, buffers.moments, buffers.text, np.arange(len(numbers)))
        has_embeddings = self.shard_set.has_embeddings
        return Batch(
            moments=buffers.moments_tensor,
            prompt_embeds=buffers.text_tensor if has_embeddings else None,
            input_ids=None if has_embeddings else torch.from_numpy(buffers.text.astype(np.int64)),
            is_dropped=torch.zeros(len(numbers), dtype=torch.bool),
            sample_ids=torch.from_numpy(self.shard_set.samples.records(samples)["id"].astype(np.int64)),
            global_rows=torch.from_numpy(numbers),
        )


def open_validation_set(data: DataConfig, num_samples: int) -> ValidationSet | None:
    """The finished shards of `data.validation_split`, or None where there is none. Raises UserError where they are
    missing or damaged."""
    if data.validation_split is None:
        return None
    assert data.shards_root is not None, "the schema asks for it"
    folder = Path(data.shards_root) / data.validation_split
    if not (folder / INDEX_FILE).is_file():
        raise UserError(
            f"data.validation_split: {folder} holds no finished shards; make them with `python -m data_prep shards "
            f"RECIPE --split {data.validation_split}`, or go without: --set data.validation_split=null"
        )
    return ValidationSet(ShardSet.open(folder), num_samples)
