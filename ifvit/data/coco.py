"""The official COCO 2014 layout: `annotations/captions_{split}2014.json` beside the images in `{split}2014/`."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ifvit.config.errors import UserError

MAX_NAMED = 10  # of many images with the same fault, so many are named and the rest counted


@dataclass(frozen=True)
class CaptionedImage:
    """One image: its COCO id, its file, and all its captions in the order of their annotation ids."""

    id: int
    path: Path
    prompts: tuple[str, ...]


def read_coco(coco_root: str | Path, split: str) -> list[CaptionedImage]:
    """The images of `split`, ids ascending. Raises UserError naming the field, file or ids that are wrong."""
    root = Path(coco_root).expanduser()
    if not root.is_dir():
        raise UserError(f"data.coco_root: {root} is no folder; give the one that holds annotations/ and {split}2014/")
    file = root / "annotations" / f"captions_{split}2014.json"
    images_folder = root / f"{split}2014"
    if not file.is_file():
        raise UserError(f"data.split: {file} is missing; is '{split}' the split, and {root} the COCO folder?")
    if not images_folder.is_dir():
        raise UserError(f"data.split: the folder {images_folder} is missing; the images of the split belong there")
    entries = read_annotations(file)
    paths = image_paths(entries["images"], images_folder, file)
    prompts = prompts_by_image(entries["annotations"], paths, file)
    check_all("images without captions", [id_ for id_ in paths if not prompts[id_]], file)
    if not paths:
        raise UserError(f"{file}: lists no images")
    missing = [f"{id_} ({path})" for id_, path in sorted(paths.items()) if not path.is_file()]
    check_all("images whose file is missing", missing, file)
    return [CaptionedImage(id_, paths[id_], tuple(prompts[id_])) for id_ in sorted(paths)]


def images_digest(images: Sequence[CaptionedImage]) -> str:
    """sha256 over ids, file names and captions: whether two shards were made from the same listing."""
    listing = [[image.id, image.path.name, image.prompts] for image in images]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def read_annotations(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read as JSON: {error}") from error
    fields = {"images": {"id": int, "file_name": str}, "annotations": {"id": int, "image_id": int, "caption": str}}
    for section, types in fields.items():
        entries = content.get(section) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"{file}: has no list '{section}', as COCO's caption files have")
        for position, entry in enumerate(entries):
            for name, kind in types.items():
                if not isinstance(entry, dict) or type(entry.get(name)) is not kind:
                    raise UserError(f"{file}: {section}[{position}] has no '{name}' of type {kind.__name__}")
    return content


def image_paths(entries: list[dict[str, Any]], folder: Path, file: Path) -> dict[int, Path]:
    paths: dict[int, Path] = {}
    for entry in entries:
        id_, name = entry["id"], entry["file_name"]
        if not 0 <= id_ < 10**12:
            raise UserError(f"{file}: image {id_}: the id must have at most 12 digits")
        if id_ in paths:
            raise UserError(f"{file}: image {id_} is listed twice")
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\0" in name or parts == PurePosixPath():
            raise UserError(f"{file}: image {id_}: file_name {name!r} must be a file below {folder}")
        paths[id_] = folder / parts
    return paths


def prompts_by_image(entries: list[dict[str, Any]], paths: dict[int, Path], file: Path) -> dict[int, list[str]]:
    prompts: dict[int, list[str]] = {id_: [] for id_ in paths}
    seen: set[int] = set()
    unknown = []
    for entry in sorted(entries, key=lambda entry: entry["id"]):
        if entry["id"] in seen:
            raise UserError(f"{file}: caption {entry['id']} is listed twice")
        seen.add(entry["id"])
        if any("\ud800" <= character <= "\udfff" for character in entry["caption"]):
            raise UserError(f"{file}: caption {entry['id']} is no valid text: it holds half of a surrogate pair")
        if not entry["caption"].strip():
            raise UserError(f"{file}: caption {entry['id']} of image {entry['image_id']} is empty; remove or write it")
        if entry["image_id"] in prompts:
            prompts[entry["image_id"]].append(entry["caption"])
        else:
            unknown.append(f"{entry['id']} (image_id {entry['image_id']})")
    check_all("captions of images that are not listed", unknown, file)
    return prompts


def check_all(fault: str, culprits: Sequence[object], file: Path) -> None:
    if culprits:
        rest = f" and {len(culprits) - MAX_NAMED} more" if len(culprits) > MAX_NAMED else ""
        raise UserError(f"{file}: {fault}: {', '.join(map(str, culprits[:MAX_NAMED]))}{rest}")
