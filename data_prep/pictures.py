"""Simple drawn pictures with captions, in the official layout of COCO 2014: something to run the machinery on."""

import argparse
import json
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from ifvit.config.errors import UserError

COLOURS = {"red": (214, 40, 40), "blue": (38, 84, 196), "green": (46, 140, 62), "yellow": (240, 200, 30)}
BACKGROUNDS = {"white": (245, 245, 245), "black": (20, 20, 20), "grey": (128, 128, 128)}
SHAPES = ("circle", "square", "triangle")
NUMBERS = {1: "a", 2: "two"}
TEMPLATES = (
    "{things}",
    "a picture of {things}",
    "{things} on a {background} background",
    "a drawing of {things} on {background}",
    "there {verb} {things} in the picture",
)  # five captions for every picture, as most COCO images have
SIDE = 64  # pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder to write, in COCO's layout")
    parser.add_argument("--num-images", type=int, default=64, help="number of pictures (default: 64)")
    parser.add_argument("--split", default="train", help="annotations/captions_{split}2014.json (default: train)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same pictures (default: 0)")


def run(args: argparse.Namespace) -> None:
    """Write pictures of one or two shapes, each with five captions. UserError if the folder has others."""
    annotations_file = args.folder / "annotations" / f"captions_{args.split}2014.json"
    images_folder = args.folder / f"{args.split}2014"
    if args.num_images < 1:
        raise UserError(f"--num-images: is {args.num_images}, must be at least 1")
    if annotations_file.exists():
        raise UserError(f"{annotations_file}: is there already; remove the folder or give another one")
    try:
        annotations_file.parent.mkdir(parents=True, exist_ok=True)
        images_folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{args.folder}: cannot be written: {error.strerror}") from error
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, args.num_images + 1):
        generator = random.Random(f"{args.seed} {image_id}")
        picture, captions = draw(generator)
        file_name = f"COCO_{args.split}2014_{image_id:012d}.png"
        picture.save(images_folder / file_name)
        images.append({"id": image_id, "file_name": file_name, "height": SIDE, "width": SIDE, "license": 1})
        for caption in captions:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, "caption": caption})
    document = {
        "info": {"description": f"pictures drawn by ifvit, seed {args.seed}", "version": "1.0", "year": 2014},
        "licenses": [{"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}],
        "images": images,
        "annotations": annotations,
    }
    annotations_file.write_text(json.dumps(document), encoding="utf-8")  # last: it is the mark of a whole set
    print(f"{args.folder}: {args.num_images} pictures of {SIDE} x {SIDE} pixels with {len(TEMPLATES)} captions each")


def draw(generator: random.Random) -> tuple[Image.Image, list[str]]:
    """One picture: one or two shapes of one kind and colour, of one size, that do not overlap."""
    colour, shape = generator.choice(sorted(COLOURS)), generator.choice(SHAPES)
    background, number = generator.choice(sorted(BACKGROUNDS)), generator.choice(sorted(NUMBERS))
    picture = Image.new("RGB", (SIDE, SIDE), BACKGROUNDS[background])
    column = SIDE // number  # each shape has a column of its own
    radius = generator.randint(8, column // 2 - 2)
    for index in range(number):
        x = index * column + generator.randint(radius, column - radius)
        y = generator.randint(radius, SIDE - radius)
        draw_shape(ImageDraw.Draw(picture), shape, x, y, radius, COLOURS[colour])
    things = f"{NUMBERS[number]} {colour} {shape}{'' if number == 1 else 's'}"
    verb = "is" if number == 1 else "are"
    return picture, [text.format(things=things, background=background, verb=verb) for text in TEMPLATES]


def draw_shape(
    canvas: ImageDraw.ImageDraw, shape: str, x: int, y: int, radius: int, colour: tuple[int, int, int]
) -> None:
    box = (x - radius, y - radius, x + radius - 1, y + radius - 1)
    if shape == "circle":
        canvas.ellipse(box, fill=colour)
    elif shape == "square":
        canvas.rectangle(box, fill=colour)
    else:
        canvas.polygon([(x, box[1]), (box[2], box[3]), (box[0], box[3])], fill=colour)
