"""Where samples come from: one class for each of the recipe's `data.coco_root`, `image_folder` and `image_tars`."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from data_prep.coco_source import CocoSource
from data_prep.folder_source import FolderSource
from data_prep.listed_sample import ListedSample
from data_prep.tar_source import TarSource
from ifvit.config.data_section import DataConfig
from ifvit.config.errors import UserError


class Source(Protocol):
    """Lists the same samples in the same order each time, until its content changes."""

    field: str  # of the recipe
    change_hint: str  # why all samples may be other ones, for an error
    ignored: Counter[str]  # after `samples`: files that were no images or captions, by suffix

    @property
    def root(self) -> Path:
        """The folder that listed paths are below, wherever it lies now."""

    def fingerprint(self) -> str:
        """Found without listing. Where it is as before, so is the listing; another may still have the same samples."""

    def samples(self) -> Iterator[ListedSample]:
        """All samples, also the faulty ones. Raises UserError where the source contradicts itself or is damaged."""


def source_of(data: DataConfig) -> Source:
    """The source that a recipe names. Raises UserError where it is not there."""
    if data.coco_root is not None:
        return CocoSource(data.coco_root, data.split)
    if data.image_folder is not None:
        return FolderSource(data.image_folder)
    if data.image_tars is not None:
        return TarSource(data.image_tars)
    raise UserError(
        "data.coco_root: is missing: write it in the recipe or give it with --set data.coco_root=... (or give "
        "data.image_folder or data.image_tars instead)"
    )
