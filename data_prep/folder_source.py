"""Samples from a folder of images, numbered 0, 1, ... in the order of their paths, folder by folder.

Captions are the lines of NAME.txt beside NAME.jpg. Where the folder has a metadata.jsonl (Hugging Face's imagefolder:
`file_name`, and `text`, a string or a list of strings), its rows are the samples, and other images are not looked at.
Names that begin with a dot are passed over. Links are followed.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from data_prep.bad_samples import count_ignored
from data_prep.listed_sample import IMAGE_SUFFIXES, ListedSample
from ifvit.config.errors import UserError, printable
from ifvit.data.captions import MAX_CHARACTERS, MAX_PROMPTS
from ifvit.data.coco import is_below, quoted

METADATA_FILE = "metadata.jsonl"
TEXT_SUFFIX = ".txt"
LONE_TEXT = ".txt without an image"
MAX_CAPTION_BYTES = 4 * MAX_CHARACTERS + 4  # more cannot be a caption of MAX_CHARACTERS
MAX_TEXT_BYTES = MAX_PROMPTS * MAX_CAPTION_BYTES  # of one image


class FolderSource:
    """The images below `root`."""

    field = "data.image_folder"
    change_hint = ""

    def __init__(self, image_folder: str) -> None:
        self.root = Path(image_folder)
        if not self.root.is_dir():
            raise UserError(f"data.image_folder: {self.root} is no folder; give the one that holds the images")
        self.metadata = self.root / METADATA_FILE
        self.ignored: Counter[str] = Counter()

    def fingerprint(self) -> str:
        """sha256 of metadata.jsonl, or over names, sizes and times of images and caption files."""
        if self.metadata.is_file():
            with self.metadata.open("rb") as file:
                return f"metadata {hashlib.file_digest(file, 'sha256').hexdigest()}"
        digest = hashlib.sha256()
        for path, stat, has_text in self.images():
            stats = [stat, file_stat(self.root / text_name(path)) if has_text else None]
            times = [(each.st_size, each.st_mtime_ns) if each else None for each in stats]
            digest.update(f"{json.dumps(path)} {times}\n".encode())
        return f"folder {digest.hexdigest()}"

    def samples(self) -> Iterator[ListedSample]:
        self.ignored.clear()
        if self.metadata.is_file():
            yield from self.samples_of_metadata()
            return
        for id_, (path, stat, has_text) in enumerate(self.images()):
            captions = captions_in(self.root / text_name(path)) if has_text else []
            yield ListedSample.with_captions(id_, path, captions, size=stat.st_size if stat else None)

    def images(self) -> Iterator[tuple[str, os.stat_result | None, bool]]:
        """Path below the root, stat (None for a broken link) and whether captions lie beside it, of each image."""
        for path, is_paired in walk(self.root, "", ()):
            suffix = PurePosixPath(path).suffix
            if suffix.lower() in IMAGE_SUFFIXES:
                yield path, file_stat(self.root / path), is_paired
            elif suffix != TEXT_SUFFIX:
                count_ignored(self.ignored, suffix)
            elif not is_paired:
                self.ignored[LONE_TEXT] += 1

    def samples_of_metadata(self) -> Iterator[ListedSample]:
        offsets: dict[str, int] = {}
        with self.metadata.open("rb") as file:
            for number, offset, row in metadata_rows(file, self.metadata):
                name = row.get("file_name")
                if not isinstance(name, str) or not is_below(name):
                    raise self.error(number, f"file_name is {quoted(name)}, must name a file below {self.root}")
                if name in offsets:
                    raise self.error(number, f"{quoted(name)} is listed twice")
                offsets[name] = offset
            for id_, name in enumerate(sorted(offsets, key=lambda name: name.split("/"))):
                file.seek(offsets[name])
                text = row_of(file.readline()).get("text")
                captions = text if isinstance(text, list) else [] if text is None else [text]
                yield ListedSample.with_captions(id_, name, captions)

    def error(self, line: int, what: str) -> UserError:
        return UserError(f"{self.metadata}: line {line}: {what}")


def walk(root: Path, folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, bool]]:
    """Each file's path below `root`, and whether an image has its captions beside it, and captions their image.

    In memory is one folder at a time.
    """
    here = root / folder
    stat = here.stat()
    if (stat.st_dev, stat.st_ino) in above:
        raise UserError(f"data.image_folder: {here} is a link to a folder that it lies in")
    try:
        entries = sorted(os.scandir(here), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"data.image_folder: {here} cannot be read ({error.strerror})") from error
    entries = [entry for entry in entries if not entry.name.startswith(".")]
    names = [PurePosixPath(entry.name) for entry in entries]
    images = {text_name(name.name) for name in names if name.suffix.lower() in IMAGE_SUFFIXES}
    pairs = images.intersection(name.name for name in names)
    for entry in entries:
        path = f"{folder}/{entry.name}" if folder else entry.name
        if entry.is_dir():
            yield from walk(root, path, (*above, (stat.st_dev, stat.st_ino)))
        else:
            yield path, text_name(entry.name) in pairs


def file_stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def text_name(image: str) -> str:
    return image.rpartition(".")[0] + TEXT_SUFFIX


def captions_in(file: Path) -> list[str]:
    """The lines of a caption file."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise UserError(f"data.image_folder: {file} cannot be read ({error.strerror})") from error
    text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff").rstrip("\r\n")
    if len(content) > MAX_TEXT_BYTES:
        return [text]  # as a whole, which is too long
    return [line.removesuffix("\r") for line in text.split("\n")]


def metadata_rows(file: IO[bytes], path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Line number, offset and content of each row."""
    number, offset = 0, 0
    while line := file.readline(MAX_TEXT_BYTES + 1):
        number += 1
        if len(line) > MAX_TEXT_BYTES:
            raise UserError(f"{path}: line {number}: has more than {MAX_TEXT_BYTES} bytes")
        if line.strip():
            try:
                yield number, offset, row_of(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}: line {number}: is no JSON object: {printable(str(error))}") from error
        offset += len(line)


def row_of(line: bytes) -> dict[str, Any]:
    row = json.loads(line.decode("utf-8", "surrogateescape"))
    if not isinstance(row, dict):
        raise ValueError("it has another type")
    return row
