"""One line of a listing: an image, where it lies, and its usable captions."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ifvit.config.errors import printable
from ifvit.data.captions import usable_captions
from ifvit.data.coco import CaptionedImage

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")  # of files taken for images
NO_CAPTIONS = "no captions"  # none, or none that can be used
NO_IMAGE, SEVERAL_IMAGES = "no image beside the captions", "several images"
LISTING_FAULTS = (NO_CAPTIONS, NO_IMAGE, SEVERAL_IMAGES)  # found without looking into an image


@dataclass(frozen=True)
class ListedSample:
    """A sample as the source has it. One with a `fault` keeps its place in the listing and is left out of its shard."""

    id: int
    image: str  # path below the source's root, with slashes: of the image, or of the tar that holds it
    prompts: tuple[str, ...]
    member: str | None = None  # its name in the tar
    offset: int | None = None  # of its bytes in the tar
    size: int | None = None  # of the image in bytes, where the source knows it
    dropped: Mapping[str, int] = field(default_factory=dict)  # captions that cannot be used, by reason
    fault: str | None = None

    @classmethod
    def with_captions(
        cls, id_: int, image: str, captions: Iterable[object], fault: str | None = None, **place: Any
    ) -> "ListedSample":
        """The sample with those of its `captions` that can be used."""
        prompts, dropped = usable_captions(captions)
        fault = fault or (None if prompts else NO_CAPTIONS)
        return cls(id_, image, prompts, dropped=dict(sorted(dropped.items())), fault=fault, **place)

    @classmethod
    def from_row(cls, row: bytes) -> "ListedSample":
        values = json.loads(row)
        return cls(**values | {"prompts": tuple(values["prompts"])})

    def row(self) -> bytes:
        """One line of JSON, ASCII only, with what there is to say."""
        values = {name: value for name, value in vars(self).items() if value not in (None, {})}
        return json.dumps(values).encode() + b"\n"

    @property
    def place(self) -> str:
        """Where the image is, below the source's root, for reports."""
        return printable("/".join(filter(None, (self.image, self.member))))

    def captioned_image(self, root: Path) -> CaptionedImage:
        """The image with its place on this machine."""
        assert self.fault is None, self.fault
        if self.offset is None:
            return CaptionedImage(self.id, root / self.image, self.prompts)
        assert self.size is not None, self
        return CaptionedImage(self.id, root / self.image, self.prompts, (self.offset, self.size))
