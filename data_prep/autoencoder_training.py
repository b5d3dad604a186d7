"""Trains the bundled autoencoder on scenes: a KL autoencoder of factor 4 with 4 latent channels."""

import math
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from data_prep.scene_drawing import draw_empty_scene
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

    label: str
    learning_rate: float
    empty_share: float  # of the images: backgrounds without shapes


# Never shown an empty image, an autoencoder decodes its latent to noise; shown them at once, it learns shapes late.
SCENES = Phase("autoencoder", 2.0e-3, 0)
WITH_EMPTY_SCENES = Phase("autoencoder, empty scenes too", 1.0e-3, 1 / 8)
STEPS_WITH_EMPTY_SCENES = 1 / 5  # as many more, of the steps on scenes


def train_autoencoder(pixels: NDArray[np.uint8], num_steps: int, seed: int, folder: Path) -> None:
    """Train on `pixels` (N, H, W, 3) and save as diffusers does: config.json and float32 safetensors in `folder`."""
    torch.manual_seed(seed)
    model = untrained_autoencoder(CHANNELS, norm_num_groups=8, image_size=pixels.shape[1])
    model = model.to(memory_format=torch.channels_last)
    with torch.no_grad():
        model.quant_conv.bias[LATENT_CHANNELS:] = INITIAL_LOGVAR
    train_phase(model, pixels, SCENES, num_steps, np.random.default_rng(seed))
    torch.manual_seed(seed + 1)
    more_steps = math.ceil(num_steps * STEPS_WITH_EMPTY_SCENES)
    train_phase(model, pixels, WITH_EMPTY_SCENES, more_steps, np.random.default_rng(seed + 1))
    model.save_pretrained(folder)


def train_phase(
    model: Any, pixels: NDArray[np.uint8], phase: Phase, num_steps: int, generator: np.random.Generator
) -> None:
    """Train `model` in place on images that `generator` draws."""
    optimizer = torch.optim.AdamW(model.parameters(), phase.learning_rate, betas=ADAM_BETAS, weight_decay=0.0)
    average_error = None
    with Progress(num_steps, phase.label, unit="step") as progress:
        for step in range(num_steps):
            for group in optimizer.param_groups:
                group["lr"] = phase.learning_rate * rate_factor(step, num_steps, WARMUP_STEPS)
            batch = draw_batch(pixels, phase.empty_share, generator)
            distribution = model.encode(batch).latent_dist
            decoded = model.decode(distribution.sample()).sample
            squared_error = F.mse_loss(decoded, batch)
            kl = distribution.kl().mean() / distribution.mean[0].numel()
            loss = squared_error + L1_WEIGHT * F.l1_loss(decoded, batch) + KL_WEIGHT * kl
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            error = squared_error.item()
            average_error = error if average_error is None else 0.98 * average_error + 0.02 * error
            progress.advance(postfix_text=f"squared error {average_error:.5f}")


def draw_batch(pixels: NDArray[np.uint8], empty_share: float, generator: np.random.Generator) -> Tensor:
    """Pixels (B, 3, H, W) in [-1, 1], on average `empty_share` of them empty scenes."""
    images = pixels[np.sort(generator.choice(len(pixels), BATCH_SIZE, replace=False))]
    if empty_share:
        for row in np.flatnonzero(generator.random(BATCH_SIZE) < empty_share):
            images[row] = draw_empty_scene(random.Random(int(generator.integers(2**63))))
    batch = torch.from_numpy(images)
    return (batch.permute(0, 3, 1, 2).float() / 127.5 - 1).to(memory_format=torch.channels_last)


def rate_factor(step: int, num_steps: int, warmup_steps: int, constant_share: float = 0.3) -> float:
    """Of the learning rate: linear warm-up, constant for a share of all steps, then half a cosine down to 1%."""
    decayed = max(0.0, (step / num_steps - constant_share) / (1 - constant_share))
    return min(1.0, (step + 1) / warmup_steps) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * decayed)))
