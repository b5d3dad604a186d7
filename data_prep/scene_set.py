"""A split of a scenes folder, whole in memory: what the bundled encoders are trained and measured on."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_prep.scene_drawing import Box
from ifvit.config.errors import UserError
from ifvit.data.coco import read_coco
from ifvit.data.scenes import IMAGE_SIZE, Description, Group

REDRAW = "delete it, and `python -m data_prep scenes` draws it again"


@dataclass(frozen=True)
class SceneSet:
    """N scenes, ids ascending."""

    pixels: NDArray[np.uint8]  # (N, 64, 64, 3)
    prompts: list[tuple[str, ...]]
    descriptions: list[Description]
    boxes: list[tuple[tuple[Box, ...], ...]]  # of each scene, for each group those of its shapes

    def __len__(self) -> int:
        return len(self.pixels)


def read_scene_set(folder: Path, split: str) -> SceneSet:
    """The split of a folder that `python -m data_prep scenes` made. Raises UserError where it is none or damaged."""
    if not (captions := folder / "annotations" / f"captions_{split}2014.json").is_file():
        raise UserError(
            f"{captions}: is missing, and train, val and unseen are needed; finish the scenes, or draw others, where "
            "--max-count, --colors and --shapes leave combinations that are held out"
        )
    images = read_coco(folder, split)
    file = folder / "annotations" / f"instances_{split}2014.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        contents = {entry["id"]: entry["scene"] for entry in content["images"]}
        descriptions = [description(contents[image.id]) for image in images]
        boxes_by_image: dict[int, list[Box]] = {image.id: [] for image in images}
        for entry in content["annotations"]:
            boxes_by_image[entry["image_id"]].append(tuple(entry["bbox"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: is not of a folder made by `python -m data_prep scenes` ({error!r})") from error
    return SceneSet(
        np.stack([pixels(image.path) for image in images]),
        [image.prompts for image in images],
        descriptions,
        [in_groups(boxes_by_image[image.id], scene) for image, scene in zip(images, descriptions, strict=True)],
    )


def pixels(file: Path) -> NDArray[np.uint8]:
    """(64, 64, 3)"""
    try:
        with Image.open(file) as image:
            array = np.asarray(image.convert("RGB"))
    except Exception as error:  # PIL's format readers raise almost any type on damaged content
        raise UserError(f"{file}: cannot be read ({' '.join(str(error).split())}); {REDRAW}") from error
    if array.shape != (IMAGE_SIZE, IMAGE_SIZE, 3):
        raise UserError(f"{file}: is no scene, it has {array.shape[1]} x {array.shape[0]} pixels; {REDRAW}")
    return array


def description(scene: Mapping[str, Any]) -> Description:
    """Of an image's entry in the annotation files."""
    return Description(tuple(Group(**group) for group in scene["groups"]), scene["relation"])


def in_groups(boxes: list[Box], scene: Description) -> tuple[tuple[Box, ...], ...]:
    """The boxes of an image, which stand in the order of its groups, apart by group."""
    rest = iter(boxes)
    return tuple(tuple(itertools.islice(rest, group.count)) for group in scene.groups)
