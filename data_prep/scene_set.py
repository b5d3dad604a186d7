"""A split of a scenes folder, whole in memory: what the bundled encoders are trained and measured on."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_prep.scene_drawing import Box
from ifvit.config.errors import UserError
from ifvit.data.coco import read_coco
from ifvit.data.scenes import Description, Group


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
    """The split of a folder that `python -m data_prep scenes` made. Raises UserError where it is none."""
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
        np.stack([np.asarray(Image.open(image.path).convert("RGB")) for image in images]),
        [image.prompts for image in images],
        descriptions,
        [in_groups(boxes_by_image[image.id], scene) for image, scene in zip(images, descriptions, strict=True)],
    )


def description(scene: dict[str, object]) -> Description:
    groups = tuple(Group(**group) for group in scene["groups"])  # type: ignore[attr-defined]
    return Description(groups, scene["relation"])  # type: ignore[arg-type]


def in_groups(boxes: list[Box], scene: Description) -> tuple[tuple[Box, ...], ...]:
    """The boxes of an image, which stand in the order of its groups, apart by group."""
    rest = iter(boxes)
    return tuple(tuple(itertools.islice(rest, group.count)) for group in scene.groups)
