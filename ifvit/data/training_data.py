"""What a run trains on: one set of shards, or several mixed by weight."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ifvit.config.addresses import address_in, is_address, public_text
from ifvit.config.data_section import DataConfig, MixedSet
from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.data.lane_order import LaneOrder
from ifvit.data.remote_shards import check_room, open_remote_shards
from ifvit.data.sample_stream import SampleStream
from ifvit.data.shard_check import check_shards
from ifvit.data.shard_set import ShardSet

SAME_FACTOR = 1.001  # scaling factors that are measured on other samples of the same kind differ by less
BATCHES_AHEAD = 3  # that a loader reads


@dataclass(frozen=True)
class TrainingData:
    """Sets of shards that fit together, in a fixed order, and their weights."""

    sets: tuple[ShardSet, ...]
    weights: tuple[float, ...] = (1.0,)
    num_lanes: int = 64  # of the order of sets that are fetched

    @property
    def digest(self) -> str:
        """sha256 of what a run reads and of what kind its order is, wherever the folders lie."""
        lanes = f"{self.num_lanes} lanes"
        parts = [shard_set.digest + lanes * (shard_set.cache is not None) for shard_set in self.sets]
        if parts == [self.sets[0].digest]:
            return parts[0]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    @property
    def places(self) -> str:
        """The folders, for an error."""
        return ", ".join(shard_set.place for shard_set in self.sets)

    @property
    def are_fetched(self) -> bool:
        """Whether shards of some set come from elsewhere while training goes on."""
        return any(shard_set.cache is not None for shard_set in self.sets)

    def stream(self, seed: int, global_batch_size: int) -> SampleStream:
        """The samples in the order in which a run with `seed` reads them."""
        return SampleStream.of(
            [shard_set.shard_samples for shard_set in self.sets],
            self.weights,
            seed,
            global_batch_size,
            self.num_lanes,
            [shard_set.cache is not None for shard_set in self.sets],
        )

    @property
    def has_embeddings(self) -> bool:
        return self.sets[0].has_embeddings

    @property
    def null_prompt_embeds(self) -> Tensor:
        """(T, X) float32: the encoding of "" by the text encoder that all sets have."""
        return self.sets[0].null_prompt_embeds

    def scaling_factor(self, chosen: float | None) -> float:
        """The recipe's, or that of the first set. Raises UserError where sets differ and the recipe has none."""
        factors = [shard_set.scaling_factor for shard_set in self.sets]
        if chosen is None and max(factors) > min(factors) * SAME_FACTOR:
            raise UserError(
                f"encoders.scaling_factor: the sets of data.mixture have {', '.join(map(str, sorted(factors)))}; "
                "give the one to use, of the set that matters most say"
            )
        return factors[0] if chosen is None else chosen

    @property
    def num_threads(self) -> int:
        """That read the batches of a rank. Reading and crc32 run outside the interpreter's lock.

        Of a small sample that is too short a time to gain by a second thread: each would wait for the lock that the
        other one has.
        """
        return 2 if self.has_embeddings else 1

    def rows_at_once(self, num_rows: int) -> int:
        """Of so many rows in a rank's batch, the rows of all batches that its threads may be reading."""
        return num_rows * (1 if self.num_threads == 1 else BATCHES_AHEAD)

    def check_cache(self, global_batch_size: int, world_size: int, num_local_ranks: int) -> None:
        """Raises UserError where data.cache_bytes do not hold what the ranks of a machine read at the same time."""
        num_rows = self.rows_at_once(global_batch_size // world_size)
        for order, shard_set in zip(self.stream(0, global_batch_size).orders, self.sets, strict=True):
            if isinstance(order, LaneOrder) and shard_set.cache is not None:
                check_room(order, shard_set.cache, world_size, num_local_ranks, num_rows)

    def check(
        self,
        recipe: Recipe,
        autoencoder_identity: Mapping[str, Any] | None = None,
        text_encoder_identity: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises UserError where a set was made with other values than the recipe's, or by other encoders."""
        mixed: list[tuple[str | None, str | None]] = [(name, part.split) for name, part in mixed_sets(recipe.data)]
        for shard_set, (name, split) in zip(self.sets, mixed or [(None, None)], strict=True):
            check_shards(recipe, shard_set, autoencoder_identity, text_encoder_identity, split=split, name=name)


def open_training_data(data: DataConfig) -> TrainingData:
    """The finished shards that a recipe names. Raises UserError where some are missing or damaged."""
    if data.shards_root is not None:
        roots = [(data.shards_root, data.split)]
    else:
        roots = [(part.shards_root, part.split or data.split) for _, part in mixed_sets(data)]
    addresses = [address_in(root, split) for root, split in roots if is_address(root)]
    fetched = iter(open_remote_shards(addresses, data.cache_dir or "", data.cache_bytes))
    fields = [f"data.mixture.{name}" for name, _ in mixed_sets(data)] or ["data"]
    sets = [
        next(fetched) if is_address(root) else ShardSet.open(Path(root) / split, field=field)
        for (root, split), field in zip(roots, fields, strict=True)
    ]
    weights = [part.weight for _, part in mixed_sets(data)] or [1.0]
    return TrainingData(tuple(sets), tuple(weights), data.num_lanes)


def mixed_sets(data: DataConfig) -> list[tuple[str, MixedSet]]:
    """(name, set) of a mixture, in an order that does not depend on how the recipe is written."""
    return sorted(data.mixture.items())


def without_secrets(recipe: Recipe) -> Recipe:
    """The recipe as a run keeps it: without the passwords and signatures that addresses of shards may have."""
    data = recipe.data
    mixture = {
        name: part.model_copy(update={"shards_root": public_text(part.shards_root)})
        for name, part in data.mixture.items()
    }
    root = None if data.shards_root is None else public_text(data.shards_root)
    return recipe.model_copy(update={"data": data.model_copy(update={"shards_root": root, "mixture": mixture})})
