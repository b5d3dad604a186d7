"""Some samples of a set as pictures: what their latents decode to, and the images that they were made of."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_prep.listing import Listing
from data_prep.tar_walk import PicturedSample
from ifvit.config.errors import UserError
from ifvit.data.coco import CaptionedImage, is_below
from ifvit.data.images import load_pixels
from ifvit.encoders.autoencoder import Autoencoder
from ifvit.runtime.progress import Progress

DECODING_BATCH = 4
SMALL = 128  # pixels: of images below, single pixels are to be seen
JPEG_QUALITY = 90


class ContactSheet:
    """Pictures of `samples`, as data URIs: one column for each kind, with None where one cannot be shown."""

    def __init__(self, samples: Sequence[PicturedSample], image_size: int) -> None:
        self.samples = samples
        self.image_size = image_size
        self.pictures: dict[str, list[str | None]] = {}
        self.remarks: list[str] = []
        self.failures: list[str] = []  # why there are pictures that cannot be had

    @property
    def is_small(self) -> bool:
        return self.image_size < SMALL

    def add_decoded(self, autoencoder: Autoencoder) -> None:
        """What the means of the latents decode to."""
        column: list[str | None] = []
        with Progress(len(self.samples), "decoding", unit="images") as progress:
            for start in range(0, len(self.samples), DECODING_BATCH):
                moments = np.stack([sample.moments for sample in self.samples[start : start + DECODING_BATCH]])
                mean, _ = torch.from_numpy(moments.astype(np.float32)).chunk(2, dim=1)
                column += [data_uri(pixels) for pixels in autoencoder.decode(mean).cpu()]
                progress.advance(len(moments))
        self.pictures["decoded latents"] = column
        self.remarks.append(f"Latents are decoded by {autoencoder.identity['name']}, the autoencoder that made them.")

    def add_originals(self, listing: Listing, root: Path) -> None:
        """The images below `root` that the listing names, cropped and resized as they were for the autoencoder."""
        column: list[str | None] = []
        reasons = []
        for sample in self.samples:
            try:
                column.append(data_uri(load_pixels(original(sample, listing, root), self.image_size)))
            except UserError as error:
                column.append(None)
                reasons.append(str(error))
        self.pictures["original"] = column
        self.remarks.append(f"Originals are the images below {root} that the listing names, cropped and resized.")
        if reasons:
            self.failures.append(
                f"{len(reasons)} of {len(self.samples)} originals cannot be shown; the first: {reasons[0]}"
            )


def original(sample: PicturedSample, listing: Listing, root: Path) -> CaptionedImage:
    """The image of `sample`. Raises UserError where the listing has none for it, or does not say so any more."""
    found = [listed for listed in listing.shard(sample.shard) if listed.id == sample.id and not listed.fault]
    if len(found) != 1 or not is_below(found[0].image):
        raise UserError(f"image {sample.id}: the listing names no file for it")
    return found[0].captioned_image(root)


def data_uri(pixels: Tensor) -> str:
    """(3, H, W) in [-1, 1] as a picture that needs no file; small ones are kept without loss."""
    values = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
    image = Image.fromarray(values.numpy())
    content = io.BytesIO()
    if max(image.size) < SMALL:
        image.save(content, kind := "png")
    else:
        image.save(content, kind := "jpeg", quality=JPEG_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
