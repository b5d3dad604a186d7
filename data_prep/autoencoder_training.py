"""Trains the bundled autoencoder on scenes and empty images: a KL autoencoder of factor 4 with 4 latent channels."""

import math
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from data_prep.running_average import RunningAverage
from data_prep.scene_drawing import SceneOptions, draw_empty_image
from ifvit.encoders.untrained import LATENT_CHANNELS, untrained_autoencoder
from ifvit.runtime.progress import Progress

CHANNELS = (16, 32, 64)  # two halvings: factor 4
WARMUP_STEPS = 50
ADAM_BETAS = (0.9, 0.99)
MAX_GRADIENT_NORM = 1.0
BATCH_SIZE = 4
L1_WEIGHT = 0.1  # of the absolute error, beside the squared one: sharper edges
KL_WEIGHT = 3.0e-5  # of the mean KL divergence of a latent element from the standard normal
INITIAL_LOGVAR = -5.0  # from 0, the decoder would first have to learn through noise as large as the latents


class Phase(NamedTuple):
    """A part of the training, with an optimizer of its own."""

    name: str
    steps: int
    learning_rate: float
    empty_share: float  # of the images: backgrounds without shapes


def phases(num_steps: int) -> tuple[Phase, Phase]:
    """`num_steps` on scenes, and a fifth as many on empty images too.

    Never shown an empty image, an autoencoder decodes its latent to noise; shown them at once, it learns shapes late.
    """
    scenes = Phase("scenes", num_steps, learning_rate=2.0e-3, empty_share=0)
    return scenes, Phase("scenes and empty images", math.ceil(num_steps / 5), 1.0e-3, empty_share=1 / 8)


def described(num_steps: int) -> dict[str, dict[str, float]]:
    """The phases by name, for a report."""
    return {
        phase.name: {"steps": phase.steps, "learning_rate": phase.learning_rate, "empty_share": phase.empty_share}
        for phase in phases(num_steps)
    }


def train_autoencoder(
    pixels: NDArray[np.uint8], options: SceneOptions, num_steps: int, seed: int, folder: Path
) -> None:
    """Train on `pixels` (N, H, W, 3) and save as diffusers does: config.json and float32 safetensors in `folder`.

    `options` has the backgrounds of empty images.
    """
    torch.manual_seed(seed)
    model = untrained_autoencoder(CHANNELS, norm_num_groups=8, image_size=pixels.shape[1])
    model = model.to(memory_format=torch.channels_last)
    with torch.no_grad():
        model.quant_conv.bias[LATENT_CHANNELS:] = INITIAL_LOGVAR
    scenes, scenes_and_empty_images = phases(num_steps)
    train_phase(model, scenes, pixels, options, np.random.default_rng(seed))
    torch.manual_seed(seed + 1)
    train_phase(model, scenes_and_empty_images, pixels, options, np.random.default_rng(seed + 1))
    model.save_pretrained(folder)


def train_phase(
    model: Any, phase: Phase, pixels: NDArray[np.uint8], options: SceneOptions, generator: np.random.Generator
) -> None:
    """Train `model` in place on images that `generator` draws."""
    optimizer = torch.optim.AdamW(model.parameters(), phase.learning_rate, betas=ADAM_BETAS, weight_decay=0.0)
    average_error = RunningAverage(0.02)
    with Progress(phase.steps, f"autoencoder, {phase.name}", unit="steps") as progress:
        for step in range(phase.steps):
            for group in optimizer.param_groups:
                group["lr"] = phase.learning_rate * rate_factor(step, phase.steps, WARMUP_STEPS)
            batch = draw_batch(pixels, options, phase.empty_share, generator)
            distribution = model.encode(batch).latent_dist
            decoded = model.decode(distribution.sample()).sample
            squared_error = F.mse_loss(decoded, batch)
            kl = distribution.kl().mean() / distribution.mean[0].numel()
            loss = squared_error + L1_WEIGHT * F.l1_loss(decoded, batch) + KL_WEIGHT * kl
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            progress.advance(postfix_text=f"squared error {average_error.add(squared_error.item()):.5f}")


def draw_batch(
    pixels: NDArray[np.uint8], options: SceneOptions, empty_share: float, generator: np.random.Generator
) -> Tensor:
    """(BATCH_SIZE, 3, H, W) in [-1, 1], on average `empty_share` of them without shapes."""
    images = pixels[np.sort(generator.choice(len(pixels), BATCH_SIZE, replace=False))]
    if empty_share:
        for row in np.flatnonzero(generator.random(BATCH_SIZE) < empty_share):
            images[row] = draw_empty_image(options, random.Random(int(generator.integers(2**63))))
    batch = torch.from_numpy(images)
    return (batch.permute(0, 3, 1, 2).float() / 127.5 - 1).to(memory_format=torch.channels_last)


def rate_factor(step: int, num_steps: int, warmup_steps: int, constant_share: float = 0.3) -> float:
    """Of the learning rate: linear warm-up, constant for a share of all steps, then half a cosine down to 1%."""
    decayed = max(0.0, (step / num_steps - constant_share) / (1 - constant_share))
    return min(1.0, (step + 1) / warmup_steps) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * decayed)))
