"""What a run trains on: one set of shards, or several mixed by weight."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ifvit.config.errors import UserError
from ifvit.config.schema import DataConfig, Recipe
from ifvit.data.shard_check import check_shards
from ifvit.data.shard_set import ShardSet


@dataclass(frozen=True)
class TrainingData:
    """Sets of shards that fit together, in a fixed order, and their weights."""

    sets: tuple[ShardSet, ...]
    weights: tuple[float, ...] = (1.0,)

    @property
    def digest(self) -> str:
        """sha256 of what a run reads, wherever the folders lie."""
        digests = [shard_set.digest for shard_set in self.sets]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    @property
    def places(self) -> str:
        """The folders, for an error."""
        return ", ".join(str(shard_set.folder) for shard_set in self.sets)

    @property
    def has_embeddings(self) -> bool:
        return self.sets[0].has_embeddings

    @property
    def null_prompt_embeds(self) -> Tensor:
        """(T, X) float32: the encoding of "" by the text encoder that all sets have."""
        return self.sets[0].null_prompt_embeds

    def scaling_factor(self, chosen: float | None) -> float:
        """The recipe's, or the one that all sets have. Raises UserError where they differ and the recipe has none."""
        factors = {shard_set.scaling_factor for shard_set in self.sets}
        if chosen is None and len(factors) > 1:
            raise UserError(
                f"encoders.scaling_factor: the sets of data.mixture have {', '.join(map(str, sorted(factors)))}; "
                "give the one to use"
            )
        return factors.pop() if chosen is None else chosen

    def check(
        self,
        recipe: Recipe,
        autoencoder_identity: Mapping[str, Any] | None = None,
        text_encoder_identity: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises UserError where a set was made with other values than the recipe's, or by other encoders."""
        splits = [part.split for _, part in mixed_sets(recipe.data)] or [recipe.data.split]
        for shard_set, split in zip(self.sets, splits, strict=True):
            check_shards(
                recipe,
                shard_set,
                autoencoder_identity,
                text_encoder_identity,
                split=split,
                checks_scaling_factor=len(self.sets) == 1,  # latents are stored unscaled: of several, one is chosen
            )


def open_training_data(data: DataConfig) -> TrainingData:
    """The finished shards that a recipe names. Raises UserError where some are missing or damaged."""
    if data.shards_root is not None:
        return TrainingData((ShardSet.open(Path(data.shards_root) / data.split),))
    parts = [part for _, part in mixed_sets(data)]
    sets = tuple(ShardSet.open(Path(part.shards_root) / part.split) for part in parts)
    return TrainingData(sets, tuple(part.weight for part in parts))


def mixed_sets(data: DataConfig) -> list[tuple[str, Any]]:
    """(name, set) of a mixture, in an order that does not depend on how the recipe is written."""
    return sorted(data.mixture.items())
