"""The official COCO 2014 layout: `annotations/captions_{split}2014.json` beside the images in `{split}2014/`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ifvit.config.errors import UserError, printable
from ifvit.data.captions import caption_fault

MAX_NAMED = 10  # of many images with the same fault, so many are named and the rest counted
MAX_SHOWN = 200  # characters of a name in a message


@dataclass(frozen=True)
class CaptionedImage:
    """One image: its id, the file it is or lies in, and its captions, in COCO in the order of their annotation ids."""

    id: int
    path: Path
    prompts: tuple[str, ...]
    span: tuple[int, int] | None = None  # offset and size in the tar `path`; None: the whole file

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        where = "" if self.span is None else f" at byte {self.span[0]}"
        return printable(f"{self.path}{where}")


def read_coco(coco_root: str | Path, split: str) -> list[CaptionedImage]:
    """The images of `split`, ids ascending, all of them and their captions usable.

    Raises UserError naming the field, file or ids that are wrong.
    """
    file, folder = coco_files(coco_root, split)
    names, captions = read_captions(file)
    for id_ in names:
        if fault := next(filter(None, map(caption_fault, captions[id_])), None):
            raise UserError(f"{file}: image {id_} has a caption that cannot be used ({fault}); mend or remove it")
    check_all("images without captions", [id_ for id_ in names if not captions[id_]], file)
    missing = [f"{id_} ({folder / name})" for id_, name in names.items() if not (folder / name).is_file()]
    check_all("images whose file is missing", missing, file)
    return [CaptionedImage(id_, folder / name, tuple(captions[id_])) for id_, name in names.items()]


def coco_files(coco_root: str | Path, split: str) -> tuple[Path, Path]:
    """The caption file of `split` and the folder of its images. Raises UserError where one is missing."""
    root = Path(coco_root).expanduser()
    if not root.is_dir():
        raise UserError(f"data.coco_root: {root} is no folder; give the one that holds annotations/ and {split}2014/")
    file = root / "annotations" / f"captions_{split}2014.json"
    folder = root / f"{split}2014"
    if not file.is_file():
        raise UserError(f"data.split: {file} is missing; is '{split}' the split, and {root} the COCO folder?")
    if not folder.is_dir():
        raise UserError(f"data.split: the folder {folder} is missing; the images of the split belong there")
    return file, folder


def read_captions(file: Path) -> tuple[dict[int, str], dict[int, list[str]]]:
    """File names and captions by image id, ids ascending. Raises UserError where the listing contradicts itself.

    Whether images are there and captions usable is not looked at. File names stay below the images' folder.
    """
    entries = read_annotations(file)
    names = image_names(entries["images"], file)
    if not names:
        raise UserError(f"{file}: lists no images")
    return names, captions_by_image(entries["annotations"], names, file)


def read_annotations(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        # Bytes that are no utf-8 become lone surrogates: the fault of one caption, not of the file.
        content = json.loads(file.read_bytes().decode("utf-8", "surrogateescape"))
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


def image_names(entries: list[dict[str, Any]], file: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    ids: dict[PurePosixPath, int] = {}  # by file
    for entry in entries:
        id_, name = entry["id"], entry["file_name"]
        if not 0 <= id_ < 10**12:
            raise UserError(f"{file}: image {id_}: the id must have at most 12 digits")
        if id_ in names:
            raise UserError(f"{file}: image {id_} is listed twice")
        if not is_below(name):
            raise UserError(f"{file}: image {id_}: file_name {quoted(name)} must be a file below the images' folder")
        if (other := ids.setdefault(PurePosixPath(name), id_)) != id_:
            raise UserError(f"{file}: images {other} and {id_} have one file_name; keep one of them")
        names[id_] = name
    return dict(sorted(names.items()))


def quoted(value: object) -> str:
    """As a literal, for messages; not all of it where it is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def is_below(name: str) -> bool:
    """Whether `name`, a path with slashes, leads to a place below the folder that it is joined to."""
    parts = PurePosixPath(name)
    return not (parts.is_absolute() or ".." in parts.parts or "\0" in name or parts == PurePosixPath())


def captions_by_image(entries: list[dict[str, Any]], names: dict[int, str], file: Path) -> dict[int, list[str]]:
    captions: dict[int, list[str]] = {id_: [] for id_ in names}
    seen: set[int] = set()
    unknown = []
    for entry in sorted(entries, key=lambda entry: entry["id"]):
        if entry["id"] in seen:
            raise UserError(f"{file}: caption {entry['id']} is listed twice")
        seen.add(entry["id"])
        if entry["image_id"] in captions:
            captions[entry["image_id"]].append(entry["caption"])
        else:
            unknown.append(f"{entry['id']} (image_id {entry['image_id']})")
    check_all("captions of images that are not listed", unknown, file)
    return captions


def check_all(fault: str, culprits: Sequence[object], file: Path) -> None:
    if culprits:
        rest = f" and {len(culprits) - MAX_NAMED} more" if len(culprits) > MAX_NAMED else ""
        raise UserError(f"{file}: {fault}: {', '.join(map(str, culprits[:MAX_NAMED]))}{rest}")
