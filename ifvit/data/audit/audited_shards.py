"""The shards of one set as an audit needs them, from an index or on paper: the samples and the bytes of each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ifvit.config.addresses import is_address
from ifvit.config.schema import Recipe
from ifvit.data.order import Integers
from ifvit.data.shard_format import FLOAT, IDS, SampleShapes, index_size, member_span, npy_size

if TYPE_CHECKING:
    from ifvit.data.shard_set import ShardSet

PAPER_CAPTIONS = 5  # of each image, as in COCO
PAPER_PROMPTS_SIZE = 400  # bytes of their text
MAX_CAPTION_SAMPLES = 2_000_000  # the first ones of an index, 120 MB of it; more need not be read to judge the draw


@dataclass(frozen=True)
class AuditedShards:
    """K shards; samples are numbered 0.. in their order."""

    name: str
    num_samples_of: Integers  # (K,)
    sizes: Integers  # (K,) bytes of each tar
    row_bytes: int  # what training reads of a sample: its moments and one caption; a mean where that varies
    index_bytes: int  # of samples.index
    num_captions: Callable[[Integers], Integers]  # of samples below `num_caption_samples`
    num_caption_samples: int
    has_lanes: bool = False  # their order is that of shards that are fetched

    @classmethod
    def of(cls, shard_set: "ShardSet") -> "AuditedShards":
        """Those of an opened index; no tar is read."""
        shards = shard_set.index["shards"]
        num_prompts = sum(shard["prompts"] for shard in shards)

        def stored_counts(samples: Integers) -> Integers:
            return shard_set.samples.records(samples)["num_prompts"].astype(np.int64)

        def mean_counts(samples: Integers) -> Integers:
            means = [max(1, round(shard["prompts"] / max(1, shard["samples"]))) for shard in shards]
            return np.array(means)[shard_set.samples.shards_of(samples)]

        is_fetched = shard_set.cache is not None  # then index.json is here, and not the records of the samples
        return cls(
            shard_set.place,
            shard_set.shard_samples,
            np.array([shard["size"] for shard in shards], np.int64),
            row_bytes(shard_set.shapes, shard_set.has_embeddings, round(num_prompts / shard_set.num_samples)),
            index_size(shard_set.num_samples, num_prompts, shard_set.has_embeddings),
            mean_counts if is_fetched else stored_counts,
            min(shard_set.num_samples, MAX_CAPTION_SAMPLES),
            is_fetched,
        )

    @classmethod
    def on_paper(cls, recipe: Recipe, num_shards: int, samples_per_shard: int) -> "AuditedShards":
        """Shards that nobody has made, of the recipe's shapes, with PAPER_CAPTIONS captions to each image."""
        model, has_embeddings = recipe.model, recipe.data.text_storage == "embeddings"
        shapes = SampleShapes(model.in_channels, model.sample_size, model.num_text_tokens, model.text_hidden_size)
        sample_size = (
            member_span(npy_size(FLOAT, shapes.moments))
            + member_span(npy_size(IDS, shapes.input_ids(PAPER_CAPTIONS)))
            + member_span(npy_size(FLOAT, shapes.prompt_embeds)) * PAPER_CAPTIONS * has_embeddings
            + member_span(PAPER_PROMPTS_SIZE)
        )
        num_samples = num_shards * samples_per_shard
        return cls(
            "on paper",
            np.full(num_shards, samples_per_shard, np.int64),
            np.full(num_shards, samples_per_shard * sample_size, np.int64),
            row_bytes(shapes, has_embeddings, PAPER_CAPTIONS),
            index_size(num_samples, num_samples * PAPER_CAPTIONS, has_embeddings),
            lambda samples: np.full_like(samples, PAPER_CAPTIONS),
            num_samples,
            is_address(recipe.data.shards_root or ""),
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "samples": self.num_samples,
            "shards": self.num_shards,
            "bytes": int(self.sizes.sum()),
            "bytes_read_per_sample": self.row_bytes,
            "index_bytes_per_sample": self.index_bytes / self.num_samples,
        }

    @property
    def num_shards(self) -> int:
        return len(self.num_samples_of)

    @cached_property
    def first_samples(self) -> Integers:
        """(K + 1,): the first sample of each shard, then the number of samples."""
        return np.concatenate([[0], np.cumsum(self.num_samples_of)])

    @property
    def num_samples(self) -> int:
        return int(self.first_samples[-1])

    @cached_property
    def are_even(self) -> bool:
        """Whether all shards but the last have the same number of samples, and the last has no more."""
        return bool((self.num_samples_of[:-1] == self.num_samples_of[0]).all()) and bool(
            self.num_samples_of[-1] <= self.num_samples_of[0]
        )

    def shards_of(self, samples: Integers) -> Integers:
        """The numbers of the shards that `samples` are in."""
        if self.are_even:  # a hundred times faster than searching among a million
            return samples // self.num_samples_of[0]
        return np.searchsorted(self.first_samples, samples, side="right") - 1


def row_bytes(shapes: SampleShapes, has_embeddings: bool, num_prompts: int) -> int:
    """Bytes that SampleReader reads of a sample with that many captions."""
    moments = npy_size(FLOAT, shapes.moments)
    if has_embeddings:
        return moments + npy_size(FLOAT, shapes.prompt_embeds)
    return member_span(moments) + npy_size(IDS, shapes.input_ids(num_prompts))  # in one read, with what lies between
