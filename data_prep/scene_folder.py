"""One split of scenes in COCO's layout: its images, then its two annotation files, the captions as its done-mark.

Every scene follows from (seed, split, number), so neither the number of scenes nor of processes changes one of them.
"""

import json
import math
import os
import random
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from PIL import Image

from data_prep.scene_drawing import Scene, SceneOptions, draw_scene
from ifvit.data.scene_captions import captions
from ifvit.data.scenes import COLORS, IMAGE_SIZE, MAX_COUNT, OUTLINES, SHAPES

FORMAT_VERSION = 1  # raised when a seed gives other scenes or captions than before, or they are written otherwise
FIRST_IDS = {"train": 1, "val": 1_000_000_001, "unseen": 2_000_000_001}  # by split
MAX_IMAGES = 1_000_000_000  # of a split: more would take the ids of the next one
CAPTIONS_PER_IMAGE = 5
SCENES_PER_CHUNK = 100
CATEGORIES = [
    {"id": number, "name": f"{color} {shape}", "supercategory": shape}
    for number, (color, shape) in enumerate(((color, shape) for color in COLORS for shape in SHAPES), 1)
]
CATEGORY_IDS = {category["name"]: category["id"] for category in CATEGORIES}
LICENSE = {"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}


def polygon_area(corners: Sequence[tuple[float, float]]) -> float:
    followers = [*corners[1:], corners[0]]
    return abs(sum(x * next_y - y * next_x for (x, y), (next_x, next_y) in zip(corners, followers, strict=True))) / 2


CIRCLE = [
    (0.5 + 0.5 * math.cos(math.tau * part / 24), 0.5 + 0.5 * math.sin(math.tau * part / 24)) for part in range(24)
]
CORNERS = {shape: outline or CIRCLE for shape, outline in OUTLINES.items()}  # polygons in the unit square
AREAS = {shape: polygon_area(corners) for shape, corners in CORNERS.items()}


@dataclass(frozen=True)
class Split:
    """A split of a scenes folder: where it is, and what it shows."""

    folder: Path
    name: str
    num_images: int
    options: SceneOptions
    seed: int

    @property
    def images_folder(self) -> Path:
        return self.folder / f"{self.name}2014"

    @property
    def captions_file(self) -> Path:
        return self.folder / "annotations" / f"captions_{self.name}2014.json"

    @property
    def instances_file(self) -> Path:
        return self.folder / "annotations" / f"instances_{self.name}2014.json"

    @property
    def is_finished(self) -> bool:
        """Whether both annotation files and all images are there."""
        is_annotated = self.captions_file.is_file() and self.instances_file.is_file()
        return is_annotated and sum(1 for _ in self.images_folder.glob("scene_*.png")) == self.num_images

    def make_room(self) -> None:
        """Make the folders, and take away the done-mark of images that have since been lost."""
        self.captions_file.unlink(missing_ok=True)
        self.captions_file.parent.mkdir(exist_ok=True)
        self.images_folder.mkdir(exist_ok=True)

    @property
    def chunks(self) -> Iterator["Chunk"]:
        """All its scenes, in parts that one process draws at a time."""
        for start in range(0, self.num_images, SCENES_PER_CHUNK):
            yield Chunk(self, range(start, min(start + SCENES_PER_CHUNK, self.num_images)))


@dataclass(frozen=True)
class Chunk:
    """Some scenes of a split, by their numbers from 0."""

    split: Split
    numbers: range


@dataclass(frozen=True)
class Entries:
    """What the annotation files say of one chunk: the items of their lists, as JSON text without the brackets."""

    images: str
    captions: str
    instances: str


def draw_chunk(chunk: Chunk) -> Entries:
    """Write the chunk's images; return what the annotation files say of them."""
    split = chunk.split
    images: list[dict[str, Any]] = []
    prompts: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    for number in chunk.numbers:
        generator = random.Random(f"{split.seed} {split.name} {number}")
        scene = draw_scene(split.options, generator)
        image_id = FIRST_IDS[split.name] + number
        file_name = f"scene_{split.name}_{image_id:012d}.png"
        Image.fromarray(scene.pixels).save(split.images_folder / file_name, compress_level=1)
        texts = captions(scene.description, scene.sizes, scene.background, CAPTIONS_PER_IMAGE, generator)
        images.append(image_entry(image_id, file_name, scene))
        prompts += [
            {"id": CAPTIONS_PER_IMAGE * image_id + place, "image_id": image_id, "caption": text}
            for place, text in enumerate(texts)
        ]
        instances += instance_entries(image_id, scene)
    return Entries(json_items(images), json_items(prompts), json_items(instances))


def image_entry(image_id: int, file_name: str, scene: Scene) -> dict[str, Any]:
    """COCO's entry of an image, with what the scene shows."""
    content = {
        "groups": [vars(group) for group in scene.description.groups],
        "relation": scene.description.relation,
        "background": scene.background,
    }
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return {"id": image_id, "file_name": file_name, **size, "license": LICENSE["id"], "scene": content}


def instance_entries(image_id: int, scene: Scene) -> list[dict[str, Any]]:
    """COCO's entries of the shapes in an image."""
    entries: list[dict[str, Any]] = []
    for group, boxes in zip(scene.description.groups, scene.boxes, strict=True):
        for box in boxes:
            left, top, width, height = box
            corners = CORNERS[group.shape]
            entries.append(
                {
                    "id": MAX_COUNT * image_id + len(entries),
                    "image_id": image_id,
                    "category_id": CATEGORY_IDS[f"{group.color} {group.shape}"],
                    "bbox": box,
                    "area": round(AREAS[group.shape] * width * height, 2),
                    "iscrowd": 0,
                    "segmentation": [
                        [round(value, 2) for x, y in corners for value in (left + x * width, top + y * height)]
                    ],
                }
            )
    return entries


def json_items(entries: Iterable[Mapping[str, Any]]) -> str:
    return ",\n".join(json.dumps(entry) for entry in entries)


def write_annotations(split: Split, settings: Mapping[str, Any], chunks: Iterable[Entries]) -> None:
    """The two annotation files of a split, captions last, from its `chunks`, of which few are held at a time."""
    with ExitStack() as stack:
        # Nameless, so that a killed process leaves nothing; in the folder, where there is room for such files.
        images, prompts, instances = (
            stack.enter_context(TemporaryFile("w+", encoding="utf-8", dir=split.folder)) for _ in range(3)
        )
        separator = ""
        for entries in chunks:
            for file, text in ((images, entries.images), (prompts, entries.captions), (instances, entries.instances)):
                file.write(separator + text)
            separator = ",\n"
        info = {"description": f"scenes drawn by ifvit: {split.name}", "version": "1.0", "year": 2014}
        head = {"info": {**info, "settings": settings}, "licenses": [LICENSE]}
        write_document(
            split.instances_file, {**head, "categories": CATEGORIES}, {"images": images, "annotations": instances}
        )
        write_document(split.captions_file, head, {"images": images, "annotations": prompts})


def write_document(path: Path, head: Mapping[str, Any], lists: Mapping[str, IO[str]]) -> None:
    """A JSON object of `head` and `lists`, whose items stand in files. It is at `path` when it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head).removesuffix("}"))
        for name, items in lists.items():
            file.write(f', "{name}": [\n')
            items.seek(0)
            shutil.copyfileobj(items, file)
            file.write("\n]")
        file.write("}\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
