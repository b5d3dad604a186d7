"""From an image file to the pixels that the autoencoder sees: the baseline's crop-then-resize, and safe decoding."""

import warnings

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ifvit.config.errors import UserError
from ifvit.data.coco import CaptionedImage

MAX_PIXELS = 64_000_000
SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")
WITH_ALPHA = ("LA", "PA", "La", "RGBA", "RGBa")
WITHOUT_ALPHA = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV", "RGBX")


def load_pixels(image: CaptionedImage, image_size: int) -> Tensor:
    """The image as (3, image_size, image_size) float32 in [-1, 1]. Raises UserError naming its id and file."""
    try:
        with Image.open(image.path) as opened:
            # Before the content is decoded: a small file can unpack to gigabytes.
            if opened.width * opened.height > MAX_PIXELS:
                raise UserError(f"has {opened.width} x {opened.height} pixels, more than {MAX_PIXELS}")
            rgb = to_rgb(ImageOps.exif_transpose(opened))
    except UserError as error:
        raise UserError(f"image {image.id}: {image.path}: {error}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"image {image.id}: {image.path}: has more than {MAX_PIXELS} pixels") from error
    except Exception as error:  # PIL's format readers raise almost any type on damaged content
        raise UserError(
            f"image {image.id}: {image.path}: cannot be decoded ({' '.join(str(error).split())}); "
            "is the file damaged or incomplete?"
        ) from error
    pixels = np.asarray(crop_and_resize(rgb, image_size), np.float32) / 127.5 - 1
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def refuse_bombs() -> None:
    """Make PIL's warning about huge images an error in this process. For programs' starts, not for libraries."""
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB; transparency over white; 16-bit grey scaled to 8 bits."""
    if image.mode in SIXTEEN_BIT:
        grey = np.asarray(image).astype(np.int64)
        return Image.fromarray((grey.clip(0, 65535) / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode in WITH_ALPHA or (image.mode in WITHOUT_ALPHA and "transparency" in image.info):
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    if image.mode in WITHOUT_ALPHA:
        return image.convert("RGB")
    raise UserError(f"has PIL's mode {image.mode}, which is not supported; convert it to RGB")


def crop_and_resize(image: Image.Image, image_size: int) -> Image.Image:
    """Centre crop to the shorter side, then resize with Lanczos: the baseline's order, not the usual one."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((image_size, image_size), Image.Resampling.LANCZOS)
