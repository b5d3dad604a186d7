"""Samples from the official COCO 2014 layout, ids ascending."""

import hashlib
from collections import Counter
from collections.abc import Iterator

from data_prep.listed_sample import ListedSample
from ifvit.data.coco import coco_files, read_captions


class CocoSource:
    """The images of one split. Whether their files are there is seen when they are read."""

    field = "data.coco_root"
    change_hint = ""

    def __init__(self, coco_root: str, split: str) -> None:
        self.file, self.root = coco_files(coco_root, split)
        self.ignored: Counter[str] = Counter()

    def fingerprint(self) -> str:
        """sha256 of the caption file, which alone decides on the listing."""
        with self.file.open("rb") as file:
            return f"coco {hashlib.file_digest(file, 'sha256').hexdigest()}"

    def samples(self) -> Iterator[ListedSample]:
        names, captions = read_captions(self.file)
        for id_, name in names.items():
            yield ListedSample.with_captions(id_, name, captions.pop(id_))
