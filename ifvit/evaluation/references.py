"""The real images of a prompt list, and what the autoencoder alone makes of them: the ceilings of every metric."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ifvit.data.coco import CaptionedImage
from ifvit.data.images import load_pixels
from ifvit.encoders.autoencoder import Autoencoder
from ifvit.sampling.sampler import uint8_images


def real_images(images: Sequence[CaptionedImage], image_size: int) -> NDArray[np.uint8]:
    """(N, image_size, image_size, 3), cropped and resized as for training."""
    return np.stack([uint8_images(load_pixels(image, image_size)[None])[0] for image in images])


def pixels_digest(images: NDArray[np.uint8]) -> str:
    """sha256 over shape and pixels."""
    digest = hashlib.sha256(str(images.shape).encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def reconstructed(images: NDArray[np.uint8], autoencoder: Autoencoder, batch_size: int) -> NDArray[np.uint8]:
    """`images` encoded to the mean of their latents and decoded again."""
    batches = []
    for start in range(0, len(images), batch_size):
        pixels = torch.from_numpy(images[start : start + batch_size]).permute(0, 3, 1, 2) / 127.5 - 1
        latent_mean = autoencoder.encode(pixels)[:, : autoencoder.latent_channels]
        batches.append(uint8_images(autoencoder.decode(latent_mean)))
    return np.concatenate(batches)
