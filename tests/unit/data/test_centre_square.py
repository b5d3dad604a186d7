"""ifvit/data/centre_square.py"""

import numpy as np
import pytest
from PIL import Image, ImageOps

from ifvit.data import centre_square as module
from ifvit.data.centre_square import ModeError, centre_square

MODES = ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I"]


def image_of(mode: str, width: int, height: int) -> Image.Image:
    random = np.random.default_rng(0)
    if mode in ("I", "I;16"):
        dtype = np.uint16 if mode == "I;16" else np.int32
        return Image.fromarray(random.integers(0, 65536, (height, width)).astype(dtype))
    pixels = Image.fromarray(random.integers(0, 256, (height, width, 4), dtype=np.uint8))
    if mode == "P":
        image = pixels.convert("RGB").quantize(9)
        image.info["transparency"] = 3
        return image
    return pixels if mode == "RGBA" else (pixels if mode == "LA" else pixels.convert("RGB")).convert(mode)


def plain(image: Image.Image, size: int) -> Image.Image:
    """The same without bands: each step on the whole image."""
    upright = ImageOps.exif_transpose(image)
    side = min(upright.size)
    left, top = (upright.width - side) // 2, (upright.height - side) // 2
    square = upright.crop((left, top, left + side, top + side))
    return module.to_rgb(square).resize((size, size), Image.Resampling.LANCZOS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("width, height", [(61, 40), (40, 61), (38, 38), (1, 50)])
def test_bands_give_the_bits_of_the_whole(
    width: int, height: int, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BAND_PIXELS", 300)
    for mode in MODES:
        image = image_of(mode, width, height)
        image.getexif()[0x0112] = orientation
        for size in (16, 38, 50):
            assert centre_square(image, size).tobytes() == plain(image, size).tobytes(), (mode, size)


def test_other_modes_are_refused() -> None:
    with pytest.raises(ModeError, match="mode F"):
        centre_square(Image.new("F", (20, 20)), 16)
