"""The training objective: predict the noise, mean squared error (DDPM, Eq. 14), on latents drawn at each visit."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifvit.data.batch import Batch
from ifvit.diffusion.schedule import NoiseSchedule
from ifvit.diffusion.timesteps import network_timesteps
from ifvit.runtime.seeding import derived_seed


@dataclass(frozen=True)
class Draws:
    """Everything random about one step's rows, apart from the data order."""

    timesteps: Tensor  # (R,), 0..999
    noise: Tensor  # (R, C, H, W), standard normal
    latent_noise: Tensor  # (R, C, H, W), standard normal: picks the latents from their moments

    def rows(self, start: int, stop: int) -> "Draws":
        return Draws(self.timesteps[start:stop], self.noise[start:stop], self.latent_noise[start:stop])


@dataclass(frozen=True)
class Losses:
    """The loss of some rows, for training and for the log."""

    mean: Tensor  # float32 scalar
    of_samples: Tensor  # (R,) float32, each row's own, without a graph


class Objective:
    """Draws timesteps and noise, and computes the loss. `losses` is pure: the same arguments give the same values.

    Args:
        schedule: on the training device.
        scaling_factor: brings the autoencoder's latents to unit variance.
        null_prompt_embeds: (T, X), the text encoder's output for "", which stands in for a dropped caption.
        seed: of the run.
        global_batch_size: rows of a step over all ranks.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        scaling_factor: float,
        null_prompt_embeds: Tensor,
        *,
        seed: int,
        global_batch_size: int,
    ) -> None:
        self.schedule = schedule
        self.scaling_factor = scaling_factor
        self.null_prompt_embeds = null_prompt_embeds
        self.seed = seed
        self.global_batch_size = global_batch_size

    def draw(self, number: int, batch: Batch) -> Draws:
        """This rank's rows of what is drawn for global batch `number`, so that no rank count changes a row."""
        device = batch.moments.device
        rows = batch.global_rows
        channels, height, width = batch.moments.shape[1] // 2, *batch.moments.shape[2:]
        size = (self.global_batch_size, channels, height, width)
        generator = torch.Generator(device).manual_seed(derived_seed(self.seed, "draws", number))
        timesteps = torch.randint(
            self.schedule.num_train_timesteps, (self.global_batch_size,), generator=generator, device=device
        )
        noise = torch.randn(size, generator=generator, device=device)
        latent_noise = torch.randn(size, generator=generator, device=device)
        return Draws(timesteps[rows], noise[rows], latent_noise[rows])

    def loss(self, model: nn.Module, batch: Batch, draws: Draws) -> Tensor:
        """Mean squared error of the predicted noise over the batch: a float32 scalar."""
        return self.losses(model, batch, draws).mean

    def losses(self, model: nn.Module, batch: Batch, draws: Draws) -> Losses:
        """Mean squared error of the predicted noise, over the batch and of each of its rows."""
        latents = latents_from_moments(batch.moments.float(), draws.latent_noise) * self.scaling_factor
        noisy_latents = self.schedule.add_noise(latents, draws.noise, draws.timesteps)
        assert batch.prompt_embeds is not None, "token ids are encoded before the objective sees the batch"
        null_prompt_embeds = self.null_prompt_embeds.to(batch.prompt_embeds.dtype)
        prompt_embeds = torch.where(batch.is_dropped[:, None, None], null_prompt_embeds, batch.prompt_embeds)
        dtype = next(model.parameters()).dtype  # the engine does not cast inputs
        noise_pred = model(noisy_latents.to(dtype), network_timesteps(draws.timesteps), prompt_embeds.to(dtype))
        noise_pred = noise_pred.float()
        of_samples = (noise_pred.detach() - draws.noise).square().flatten(1).mean(dim=1)
        return Losses(F.mse_loss(noise_pred, draws.noise), of_samples)


def latents_from_moments(moments: Tensor, latent_noise: Tensor) -> Tensor:
    """A draw from the autoencoder's posterior: moments (B, 2C, H, W), mean then logvar -> latents (B, C, H, W)."""
    latent_mean, latent_logvar = moments.chunk(2, dim=1)
    return latent_mean + torch.exp(0.5 * latent_logvar) * latent_noise
