"""From a decoded image to the square that the autoencoder sees: upright, cropped, RGB, resized.

All that is made in between is a band of rows: only the image itself is in memory as a whole, whatever its mode.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

BAND_PIXELS = 1_000_000
SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")
WITH_ALPHA = ("LA", "PA", "La", "RGBA", "RGBa")
WITHOUT_ALPHA = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV", "RGBX")


class ModeError(Exception):
    """An image of a mode that is not converted to RGB here."""


class Turn(NamedTuple):
    """How an image is made upright, and where its upright pixels are stored: axes swapped, then mirrored."""

    method: Image.Transpose
    swapped: bool
    mirrored_x: bool
    mirrored_y: bool


TURNS = {  # by EXIF's orientation
    2: Turn(Image.Transpose.FLIP_LEFT_RIGHT, False, True, False),
    3: Turn(Image.Transpose.ROTATE_180, False, True, True),
    4: Turn(Image.Transpose.FLIP_TOP_BOTTOM, False, False, True),
    5: Turn(Image.Transpose.TRANSPOSE, True, False, False),
    6: Turn(Image.Transpose.ROTATE_270, True, False, True),
    7: Turn(Image.Transpose.TRANSVERSE, True, True, True),
    8: Turn(Image.Transpose.ROTATE_90, True, True, False),
}


def centre_square(image: Image.Image, image_size: int) -> Image.Image:
    """`image` upright, cropped to the centre of its shorter side, as RGB, then resized to `image_size` with Lanczos.

    The baseline's order, not the usual one. Loads `image` and leaves it as it is. Raises ModeError.
    """
    image.load()
    side = min(image.size)
    narrow = Image.new("RGB", (image_size, side))
    # Lanczos goes along the rows first and rounds in between, so bands of rows give the same bits as the whole.
    for top, band in upright_bands(image, side):
        narrow.paste(to_rgb(band).resize((image_size, band.height), Image.Resampling.LANCZOS), (0, top))
    return narrow.resize((image_size, image_size), Image.Resampling.LANCZOS)


def upright_bands(image: Image.Image, side: int) -> Iterator[tuple[int, Image.Image]]:
    """The upright centre square of (side, side) as bands of rows, each with the number of its first row."""
    turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    width, height = image.size[::-1] if turn and turn.swapped else image.size
    left, above = (width - side) // 2, (height - side) // 2
    num_rows = max(1, BAND_PIXELS // side)
    for top in range(0, side, num_rows):
        bottom = min(top + num_rows, side)
        box = (left, above + top, left + side, above + bottom)
        if turn is None:
            yield top, image.crop(box)
        else:
            yield top, image.crop(stored_box(box, turn, *image.size)).transpose(turn.method)


def stored_box(
    box: tuple[int, int, int, int], turn: Turn, stored_width: int, stored_height: int
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in the stored image of what is `box` in the upright one."""
    left, top, right, bottom = (box[1], box[0], box[3], box[2]) if turn.swapped else box
    if turn.mirrored_x:
        left, right = stored_width - right, stored_width - left
    if turn.mirrored_y:
        top, bottom = stored_height - bottom, stored_height - top
    return left, top, right, bottom


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
    raise ModeError(f"has PIL's mode {image.mode}, which is not supported; convert it to RGB")
