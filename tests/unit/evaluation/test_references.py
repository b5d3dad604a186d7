"""ifvit/evaluation/references.py"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ifvit.data.coco import read_coco
from ifvit.evaluation.references import pixels_digest, real_images, reconstructed
from tests.drawn_coco import draw_coco


class HalfAutoencoder:
    """Encodes to half the pixels, with a logvar that nobody may look at; decodes to twice the latents."""

    latent_channels = 3

    def encode(self, pixels: Tensor) -> Tensor:
        return torch.cat([pixels / 2, torch.full_like(pixels, 30)], dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        return latents * 2


def test_real_images_of_the_right_size_keep_their_pixels(tmp_path: Path) -> None:
    root = draw_coco(tmp_path, "val", num_images=2)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
    images = read_coco(root, "val")
    for image, content in zip(images, pixels, strict=True):
        Image.fromarray(content).save(image.path.with_suffix(".png"))
        image.path.with_suffix(".png").replace(image.path)
    assert np.array_equal(real_images(images, 24), pixels)
    assert real_images(images, 16).shape == (2, 16, 16, 3)


def test_a_lossless_autoencoder_gives_the_images_back() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    assert np.array_equal(reconstructed(images, HalfAutoencoder(), batch_size=2), images)  # type: ignore[arg-type]


def test_the_digest_sees_pixels_and_shape() -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    changed = images.copy()
    changed[1, 3, 3, 2] = 1
    digests = {pixels_digest(each) for each in (images, changed, images.reshape(1, 8, 4, 3))}
    assert len(digests) == 3
    assert pixels_digest(images.copy()) in digests
