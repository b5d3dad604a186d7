"""From prompts to images: text encoder, guided solver, decoder."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ifvit.config.schema import DiffusionConfig, ModelConfig, SamplingConfig
from ifvit.diffusion.guidance import guided_noise_predictor
from ifvit.diffusion.solver import denoise, make_scheduler
from ifvit.runtime.seeding import derived_seed


class Decoder(Protocol):
    """What sampling needs of the autoencoder."""

    def decode(self, latents: Tensor) -> Tensor: ...


class Sampler:
    """Makes images with one model. An image depends on its prompt, the seed and its number, not on its batch.

    Args:
        model: a UViT with the weights to sample from, on `device`.
        autoencoder: decodes (B, C, H, W) latents to pixels in [-1, 1].
        encode_prompts: prompts to (B, T, X), on `device`.
        null_prompt_embeds: (T, X), the encoding of "".
        scaling_factor: what the latents were multiplied with for training.
    """

    def __init__(
        self,
        model: nn.Module,
        autoencoder: Decoder,
        encode_prompts: Callable[[Sequence[str]], Tensor],
        null_prompt_embeds: Tensor,
        scaling_factor: float,
        shape: ModelConfig,
        diffusion: DiffusionConfig,
        sampling: SamplingConfig,
        device: torch.device,
    ) -> None:
        self.model = model
        self.autoencoder = autoencoder
        self.encode_prompts = encode_prompts
        self.null_prompt_embeds = null_prompt_embeds.to(device)
        self.scaling_factor = scaling_factor
        self.shape = shape
        self.diffusion = diffusion
        self.sampling = sampling
        self.device = device

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        seed: int,
        numbers: Sequence[int] | None = None,
        on_batch: Callable[[int], Any] = lambda count: None,
    ) -> np.ndarray:
        """Images (N, height, width, 3) uint8, one for each of `prompts`.

        `numbers` tells several images of one prompt apart; `on_batch` hears how many images each batch finished.
        """
        numbers = [0] * len(prompts) if numbers is None else numbers
        was_training = self.model.training
        self.model.eval()
        images = []
        for start in range(0, len(prompts), self.sampling.batch_size):
            rows = slice(start, start + self.sampling.batch_size)
            pixels = self.autoencoder.decode(self.sample_latents(prompts[rows], seed, numbers[rows]))
            images.append(uint8_images(pixels))
            on_batch(len(images[-1]))
        self.model.train(was_training)
        return np.concatenate(images)

    def sample_latents(self, prompts: Sequence[str], seed: int, numbers: Sequence[int]) -> Tensor:
        """Unscaled latents (B, C, H, W), as the autoencoder decodes them."""
        size = (self.shape.in_channels, self.shape.sample_size, self.shape.sample_size)
        noise = initial_noise(prompts, seed, numbers, size).to(self.device)
        predict_noise = guided_noise_predictor(
            self.model, self.encode_prompts(prompts), self.null_prompt_embeds, self.sampling.guidance_scale
        )
        scheduler = make_scheduler(self.diffusion, self.sampling.solver)
        return denoise(predict_noise, noise, scheduler, self.sampling.num_inference_steps) / self.scaling_factor


def initial_noise(prompts: Sequence[str], seed: int, numbers: Sequence[int], size: tuple[int, int, int]) -> Tensor:
    """Standard normal (B, *size), each row from a CPU generator of its own: equal on any device and in any batch."""
    rows = []
    for prompt, number in zip(prompts, numbers, strict=True):
        generator = torch.Generator().manual_seed(derived_seed(seed, "initial noise", prompt, number))
        rows.append(torch.randn(size, generator=generator))
    return torch.stack(rows)


def uint8_images(pixels: Tensor) -> np.ndarray:
    """Pixels (B, 3, height, width) in [-1, 1] to (B, height, width, 3) in 0..255, rounded to nearest."""
    scaled = ((pixels.float() + 1) * 127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
