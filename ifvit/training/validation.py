"""The validation loss: the training objective on held-out samples, the same noise and timesteps each time."""

from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ifvit.config.schema import Recipe
from ifvit.data.batch import Batch
from ifvit.data.reader import SampleReader
from ifvit.data.sample_index import Integers
from ifvit.data.validation_set import ValidationSet
from ifvit.diffusion.objective import Draws, Objective
from ifvit.model.uvit import UViT
from ifvit.runtime.agreement import agreed_errors
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.seeding import derived_seed
from ifvit.training.averaged_model import AveragedModel
from ifvit.training.meter import is_validated
from ifvit.training.state import StepResult, TrainState


class ValidationLoss:
    """Gives validation_loss at validated steps: the loss of the averaged weights (the recipe's first decay), in float32
    and evaluation mode, with no caption dropped. The ranks share the samples, so it is the same on any number of them,
    to summation order.
    """

    def __init__(
        self,
        recipe: Recipe,
        samples: ValidationSet,
        objective: Objective,
        with_prompt_embeds: Callable[[Batch], Batch],
        averaged: AveragedModel,
        ranks: Ranks,
        device: torch.device,
    ) -> None:
        """`with_prompt_embeds` encodes the token ids of a batch that has no embeddings."""
        self.recipe = recipe
        self.samples = samples
        self.objective = objective
        self.with_prompt_embeds = with_prompt_embeds
        self.averaged = averaged
        self.ranks = ranks
        self.device = device
        num_train_timesteps = recipe.diffusion.num_train_timesteps
        self.draws = ValidationDraws(samples.places, samples.latent_shape, num_train_timesteps, recipe.seed)

    def on_start(self, state: TrainState) -> None:
        """Nothing is kept between two validations."""

    def on_step(self, state: TrainState, result: StepResult) -> None:
        """Only logged steps are validated."""

    def on_stop(self, state: TrainState) -> None:
        """Nothing is held."""

    def metrics(self, state: TrainState, result: StepResult) -> dict[str, float]:
        if not is_validated(state.step, self.recipe):
            return {}
        model = self.averaged.gather()
        with agreed_errors(self.ranks):  # a damaged shard may be read by one rank only
            loss = self.sum_of_losses(model)
        if self.ranks.world_size > 1:
            dist.all_reduce(loss)
        return {"validation_loss": loss.item() / len(self.samples)}

    @torch.no_grad()
    def sum_of_losses(self, model: UViT) -> Tensor:
        """Of this rank's samples, a float64 scalar on the device."""
        mine = np.arange(self.ranks.rank, len(self.samples), self.ranks.world_size)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        reader = SampleReader(self.samples.shard_set)
        for start in range(0, len(mine), self.recipe.train.micro_batch_size):
            numbers = mine[start : start + self.recipe.train.micro_batch_size]
            batch = self.with_prompt_embeds(self.samples.read(reader, numbers).to(self.device))
            losses = self.objective.losses(model, batch, self.draws.of(numbers, self.device))
            total += losses.of_samples.double().sum()
        reader.close()
        return total


class ValidationDraws:
    """What is random about validation samples: a function of the seed and each sample's place in its split.

    Timesteps are stratified: of K samples each has one of K equal parts of the schedule, and a random place in it.
    They are drawn on the CPU, so that they are the same for every device.
    """

    def __init__(
        self, places: Integers, latent_shape: tuple[int, int, int], num_train_timesteps: int, seed: int
    ) -> None:
        self.places = places
        self.latent_shape = latent_shape
        self.num_train_timesteps = num_train_timesteps
        self.seed = seed
        generator = torch.Generator().manual_seed(derived_seed(seed, "validation timesteps"))
        self.strata = torch.randperm(len(places), generator=generator).tolist()

    def of(self, numbers: Integers, device: torch.device) -> Draws:
        """Of the samples with these numbers, as rows on `device`."""
        rows = [self.row(number) for number in numbers.tolist()]
        timesteps, noise, latent_noise = (torch.stack(column).to(device) for column in zip(*rows, strict=True))
        return Draws(timesteps, noise, latent_noise)

    def row(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "validation", int(self.places[number])))
        within = torch.rand((), dtype=torch.float64, generator=generator)
        timestep = ((self.strata[number] + within) / len(self.places) * self.num_train_timesteps).long()
        noise, latent_noise = torch.randn((2, *self.latent_shape), generator=generator)
        return timestep, noise, latent_noise
