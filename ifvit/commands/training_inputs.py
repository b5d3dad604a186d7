"""What a training run reads: shards, validation samples, frozen encoders. Opened and checked before there is a run."""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.data.batch import Batch
from ifvit.data.batch_stream import BatchStream
from ifvit.data.loader import BatchLoader
from ifvit.data.online_text import with_prompt_embeds
from ifvit.data.training_data import TrainingData, open_training_data, without_secrets
from ifvit.data.validation_set import ValidationSet, open_validation_set
from ifvit.encoders.loading import Encoders, load_encoders
from ifvit.model import weights as model_folder
from ifvit.runtime.agreement import agreed_errors, gathered, patient_group
from ifvit.runtime.distributed import Ranks
from ifvit.training.engine import num_micro_batches
from ifvit.training.phases import FETCHING, Phases


@dataclass(frozen=True)
class TrainingInputs:
    """On one rank. They fit together, and are the same on all ranks."""

    recipe: Recipe  # with the scaling factor of the shards, without secrets
    scaling_factor: float
    data: TrainingData
    validation_set: ValidationSet | None
    encoders: Encoders
    num_local_ranks: int  # on the machine that has most

    def with_prompt_embeds(self, batch: Batch) -> Batch:
        """`batch`, its prompts encoded where the shards have token ids."""
        return with_prompt_embeds(batch, self.encoders.text_encoder)


def open_inputs(recipe: Recipe, ranks: Ranks, device: torch.device) -> TrainingInputs:
    """Those that `recipe` names, the encoders on `device`. Collective. Raises UserError where they do not fit."""
    with agreed_errors(ranks):
        num_micro_batches(recipe.train, ranks.world_size)
        data = open_training_data(recipe.data)
        validation_set = open_validation_set(recipe.data, recipe.tracking.validation_num_samples)
        recipe = without_secrets(recipe)
        encoders = load_encoders(recipe, device)
        data.check(recipe, encoders.autoencoder.identity, encoders.text_encoder.identity)
        if validation_set is not None:
            validation_set.check(recipe, encoders.autoencoder.identity, encoders.text_encoder.identity)
        check_initial_weights(recipe)
        scaling_factor = data.scaling_factor(recipe.encoders.scaling_factor)
        recipe = with_scaling_factor(recipe, scaling_factor)
    check_same_on_all_ranks(data.digest, data.places, ranks)
    if validation_set is not None:
        check_same_on_all_ranks(validation_set.shard_set.digest, validation_set.shard_set.place, ranks)
    num_local_ranks = max(gathered(ranks, ranks.local_rank)) + 1
    with agreed_errors(ranks):
        data.check_cache(recipe.train.global_batch_size, ranks.world_size, num_local_ranks)
    return TrainingInputs(recipe, scaling_factor, data, validation_set, encoders, num_local_ranks)


def open_batches(
    inputs: TrainingInputs, ranks: Ranks, device: torch.device, phases: Phases, first_batch: int
) -> BatchStream:
    """This rank's batches from `first_batch` on, on `device`, with prompt_embeds. To be closed. Collective."""
    return BatchStream(
        partial(open_loader, inputs, ranks, device, phases),
        lambda batch: inputs.with_prompt_embeds(batch.to(device)),
        first_batch,
    )


def open_loader(
    inputs: TrainingInputs, ranks: Ranks, device: torch.device, phases: Phases, first_batch: int
) -> BatchLoader:
    """Where shards are fetched, its first batch is there."""
    recipe = inputs.recipe
    loader = BatchLoader(
        inputs.data,
        recipe.seed,
        recipe.train.global_batch_size,
        recipe.train.caption_dropout_prob,
        ranks.rank,
        ranks.world_size,
        inputs.num_local_ranks,
        first_step=first_batch,
        pin_memory=device.type == "cuda",
    )
    with ExitStack() as on_error:
        on_error.enter_context(loader)
        if inputs.data.are_fetched:
            position = phases.position
            with agreed_errors(ranks, patient_group()):
                phases.enter(FETCHING, position.step)
                loader.wait_for_first()
            phases.enter(position.phase, position.step)
        on_error.pop_all()
    return loader


def check_initial_weights(recipe: Recipe) -> None:
    """Raises UserError unless the folder in `train.init_from`, if any, has a model of the recipe's fields."""
    if recipe.train.init_from is not None:
        folder = Path(recipe.train.init_from)
        try:
            there = model_folder.read_model_config(folder).model_dump(mode="json")
        except UserError as error:
            raise UserError(*(f"train.init_from: {line}" for line in error.lines)) from error
        model_folder.check_same_model(there, recipe.model, f"train.init_from: {folder}")


def check_same_on_all_ranks(digest: str, places: str, ranks: Ranks) -> None:
    """Raises UserError where a rank has opened shards of other content, such as an old copy on its machine's disk."""
    digests = gathered(ranks, digest)
    with agreed_errors(ranks):
        if others := [rank for rank, digest in enumerate(digests) if digest != digests[0]]:
            raise UserError(
                f"{places}: has other shards on rank {others[0]} than on rank 0 ({len(others)} of "
                f"{ranks.world_size} ranks differ); give all machines the same"
            )


def with_scaling_factor(recipe: Recipe, scaling_factor: float) -> Recipe:
    """The recipe with the shards' scaling factor where it leaves it to them, so that the run's recipe says it."""
    encoders = recipe.encoders.model_copy(update={"scaling_factor": scaling_factor})
    return recipe.model_copy(update={"encoders": encoders})
