"""From an image file to the pixels that the autoencoder sees, in little memory and without trust in the file."""

import contextlib
import ctypes
import errno
import io
import os
import stat
import threading
import traceback
import warnings
from typing import IO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ifvit.config.errors import UserError, printable
from ifvit.data.centre_square import ModeError, centre_square
from ifvit.data.coco import CaptionedImage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # PIL reads more; for EPS it would start Ghostscript
MAX_PIXELS = 64_000_000
LARGE_PIXELS = 4_000_000
LARGE_BYTES = 16_000_000  # WebP files are read whole when they are opened
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM)

# Held for as long as a large image is in memory: at most 4 bytes a pixel, 256 MB. A process with four decoding threads
# stays below 400 MB over the one without images (measured at MAX_PIXELS: 330), but for formats whose decoder holds the
# image again. In MB at MAX_PIXELS: progressive JPEG 470, without subsampling 670, CMYK 790; WebP 1,080, lossless 1,150;
# TIFF that is compressed 510, in one strip 700, rotated 540.
one_large_image = threading.RLock()


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
        raise ContentError("not an image", "is no regular file")
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
    num_bytes = file.seek(0, io.SEEK_END)
    if num_bytes == 0:
        raise ContentError("empty file", "has 0 bytes")
    file.seek(0)
    try:
        with turn_of_large(num_bytes > LARGE_BYTES), Image.open(file, formats=FORMATS) as opened:
            # Before the content is decoded: a small file can unpack to gigabytes.
            num_pixels = opened.width * opened.height
            if num_pixels > MAX_PIXELS:
                raise ContentError(
                    "too many pixels", f"has {opened.width} x {opened.height} pixels, more than {MAX_PIXELS}"
                )
            with turn_of_large(num_pixels > LARGE_PIXELS):
                return square_of(opened, image_size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ContentError("too many pixels", f"has more than {MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise ContentError("not an image", f"is no image in one of the formats {', '.join(FORMATS)}") from error
    except ModeError as error:
        raise ContentError("unsupported mode", str(error)) from error
    except (ContentError, MemoryError):
        raise
    except Exception as error:  # PIL's format readers raise almost any type on damaged content
        if isinstance(error, OSError) and error.errno is not None:
            raise
        detail = f"cannot be decoded ({error}); is the file damaged or incomplete?"
        raise ContentError("damaged", detail) from error


def turn_of_large(is_large: bool) -> contextlib.AbstractContextManager[object]:
    """For a large image, its turn among the threads of this process."""
    return one_large_image if is_large else contextlib.nullcontext()


def square_of(opened: Image.Image, image_size: int) -> Image.Image:
    """`centre_square`, of which no other pixel is left in memory, whatever happens."""
    try:
        return centre_square(opened, image_size)
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # they have the pixels, for as long as the error is kept
        raise
    finally:
        is_large = opened.width * opened.height > LARGE_PIXELS
        opened.close()
        if is_large:
            # The C library keeps what was freed, per thread, for the next image of that thread: 250 MB in each.
            ctypes.CDLL(None).malloc_trim(0)
