"""From an image file to the pixels that the autoencoder sees: the baseline's crop-then-resize, and safe decoding."""

import contextlib
import errno
import io
import os
import stat
import threading
import warnings
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ifvit.config.errors import UserError, printable
from ifvit.data.coco import CaptionedImage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # PIL reads more; for EPS it would start Ghostscript
MAX_PIXELS = 64_000_000
LARGE_PIXELS = 16_000_000
SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")
WITH_ALPHA = ("LA", "PA", "La", "RGBA", "RGBa")
WITHOUT_ALPHA = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV", "RGBX")
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM)

one_large_image = threading.Lock()  # decoding threads hold a few hundred MB for each large image


class BadImageError(UserError):
    """An image that cannot be used, for a `reason` in a few words that reports count."""

    def __init__(self, image: CaptionedImage, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = printable(" ".join(detail.split()))
        super().__init__(f"image {image.id}: {image.place}: {self.detail}")


class ContentError(Exception):
    """(reason, detail) of what is wrong with the content of an image file."""


def load_pixels(image: CaptionedImage, image_size: int) -> Tensor:
    """The image as (3, image_size, image_size) float32 in [-1, 1].

    Raises BadImageError naming its id and file; UserError where the storage fails and the image may be good.
    """
    try:
        with open_image(image) as file:
            rgb = decoded(file, image_size)
    except ContentError as fault:
        raise BadImageError(image, *fault.args) from fault
    except OSError as error:
        if error.errno in ABSENT:
            raise BadImageError(image, "missing file", f"cannot be opened ({error.strerror})") from error
        raise UserError(
            f"image {image.id}: {image.place}: reading it fails ({error}); is the storage there?"
        ) from error
    pixels = np.asarray(rgb, np.float32) / 127.5 - 1
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def refuse_bombs() -> None:
    """Make PIL's warning about huge images an error in this process. For programs' starts, not for libraries."""
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def open_image(image: CaptionedImage) -> IO[bytes]:
    """The image's bytes as a file. Raises ContentError for what is no file, such as a pipe, which is not waited for."""
    descriptor = os.open(image.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ContentError("no image", "is no regular file")
    file = os.fdopen(descriptor, "rb")
    return file if image.span is None else io.BufferedReader(Window(file, *image.span))  # type: ignore[type-var]


class Window(io.RawIOBase):
    """`size` bytes of `file` from `offset` on, as a file of their own: a member of a tar. Closes `file` with it."""

    def __init__(self, file: IO[bytes], offset: int, size: int) -> None:
        self.file, self.offset, self.size, self.position = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        length = max(0, min(len(buffer), self.size - self.position))
        count = os.preadv(self.file.fileno(), [memoryview(buffer)[:length]], self.offset + self.position)
        self.position += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = max(0, (0, self.position, self.size)[whence] + offset)
        return self.position

    def close(self) -> None:
        self.file.close()
        super().close()


def decoded(file: IO[bytes], image_size: int) -> Image.Image:
    """The image in `file` upright, cropped, as RGB, resized.

    Raises ContentError; an OSError with an errno is the storage's.
    """
    if file.seek(0, io.SEEK_END) == 0:
        raise ContentError("empty file", "has 0 bytes")
    file.seek(0)
    try:
        with Image.open(file, formats=FORMATS) as opened:
            # Before the content is decoded: a small file can unpack to gigabytes.
            num_pixels = opened.width * opened.height
            if num_pixels > MAX_PIXELS:
                raise ContentError(
                    "too many pixels", f"has {opened.width} x {opened.height} pixels, more than {MAX_PIXELS}"
                )
            with one_large_image if num_pixels > LARGE_PIXELS else contextlib.nullcontext():
                ImageOps.exif_transpose(opened, in_place=True)
                return resized(to_rgb(centre_crop(opened)), image_size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ContentError("too many pixels", f"has more than {MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise ContentError("no image", f"is no image in one of the formats {', '.join(FORMATS)}") from error
    except (ContentError, MemoryError):
        raise
    except Exception as error:  # PIL's format readers raise almost any type on damaged content
        if isinstance(error, OSError) and error.errno is not None:
            raise
        detail = f"cannot be decoded ({error}); is the file damaged or incomplete?"
        raise ContentError("damaged", detail) from error


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
    raise ContentError("unsupported mode", f"has PIL's mode {image.mode}, which is not supported; convert it to RGB")


def crop_and_resize(image: Image.Image, image_size: int) -> Image.Image:
    """Centre crop to the shorter side, then resize with Lanczos: the baseline's order, not the usual one."""
    return resized(centre_crop(image), image_size)


def centre_crop(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)) if image.width != image.height else image


def resized(image: Image.Image, image_size: int) -> Image.Image:
    return image.resize((image_size, image_size), Image.Resampling.LANCZOS)
