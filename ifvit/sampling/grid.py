"""Many images on one labelled sheet."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MIN_CELL = 160  # pixels; smaller images are enlarged without smoothing, so that single pixels can be seen
FONT_SIZE = 13
LINE_HEIGHT = 16
MARGIN = 8


def labelled_grid(images: np.ndarray, labels: Sequence[str], title: str = "") -> Image.Image:
    """A sheet of `images` (N, height, width, 3) uint8, each over its label, below `title`."""
    enlargement = max(1, math.ceil(MIN_CELL / images.shape[2]))
    height, width = images.shape[1] * enlargement, images.shape[2] * enlargement
    columns = columns_for(len(images))
    font = ImageFont.load_default(FONT_SIZE)
    characters = max(8, int(width / font.getlength("n")))
    wrapped = [textwrap.wrap(label, characters, max_lines=4, placeholder=" ...") or [""] for label in labels]
    label_height = LINE_HEIGHT * max(len(lines) for lines in wrapped) + MARGIN
    title_lines = textwrap.wrap(title, max(8, characters * columns)) if title else []
    top = LINE_HEIGHT * len(title_lines) + (MARGIN if title_lines else 0)
    rows = math.ceil(len(images) / columns)
    sheet = Image.new(
        "RGB",
        (MARGIN + columns * (width + MARGIN), MARGIN + top + rows * (height + label_height + MARGIN)),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    write_lines(draw, (MARGIN, MARGIN), title_lines, font)
    for index, (image, lines) in enumerate(zip(images, wrapped, strict=True)):
        row, column = divmod(index, columns)
        left = MARGIN + column * (width + MARGIN)
        upper = MARGIN + top + row * (height + label_height + MARGIN)
        enlarged = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left, upper))
        write_lines(draw, (left, upper + height + 2), lines, font)
    return sheet


def columns_for(count: int) -> int:
    """As many columns as make full rows of a sheet about square or wider, if such a number exists."""
    lowest, highest = math.ceil(math.sqrt(count)), math.ceil(math.sqrt(2 * count))
    return next((columns for columns in range(highest, lowest - 1, -1) if count % columns == 0), highest)


def write_lines(draw: ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[str], font: object) -> None:
    for number, line in enumerate(lines):
        draw.text((corner[0], corner[1] + number * LINE_HEIGHT), line, fill="black", font=font)  # type: ignore[arg-type]
