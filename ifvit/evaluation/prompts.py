"""What an evaluation makes images of: one caption of each of a split's first images, the same for every run."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ifvit.config.errors import UserError
from ifvit.data.coco import CaptionedImage, read_coco
from ifvit.runtime.seeding import derived_seed

DEFAULT_SPLITS = ("val", "unseen")  # as far as the folder has them
DEFAULT_NUM_IMAGES = 500
SMALLEST_NUM_IMAGES = 2  # a covariance needs two


@dataclass(frozen=True)
class PromptList:
    """One prompt for each of a split's images."""

    split: str
    images: tuple[CaptionedImage, ...]
    prompts: tuple[str, ...]

    @cached_property
    def numbers(self) -> list[int]:
        """How often each prompt stood earlier in the list: images of equal prompts start from different noise."""
        seen: Counter[str] = Counter()
        numbers = []
        for prompt in self.prompts:
            numbers.append(seen[prompt])
            seen[prompt] += 1
        return numbers

    @cached_property
    def digest(self) -> str:
        """sha256 over image ids and prompts."""
        listing = [[image.id, prompt] for image, prompt in zip(self.images, self.prompts, strict=True)]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def prompt_list(coco_root: str | Path, split: str, num_images: int | None = None) -> PromptList:
    """The first `num_images` of `split` by ascending id; None means 500 or all there are.

    Raises UserError where the split cannot be read, has fewer images than were asked for, or too few to measure.
    """
    images = read_coco(coco_root, split)
    if len(images) < SMALLEST_NUM_IMAGES:
        raise UserError(
            f"--splits: split {split} of {coco_root} has {len(images)} image, a distance needs at least "
            f"{SMALLEST_NUM_IMAGES}"
        )
    if num_images is not None and num_images > len(images):
        raise UserError(f"--num-images: is {num_images}, split {split} of {coco_root} has {len(images)} images")
    chosen = tuple(images[: num_images or DEFAULT_NUM_IMAGES])
    prompts = (
        image.prompts[derived_seed("evaluation caption", split, image.id) % len(image.prompts)] for image in chosen
    )
    return PromptList(split, chosen, tuple(prompts))


def default_splits(coco_root: str | Path) -> list[str]:
    """Which of `val` and `unseen` the folder has. Raises UserError where it has neither."""
    annotations = Path(coco_root).expanduser() / "annotations"
    found = [split for split in DEFAULT_SPLITS if (annotations / f"captions_{split}2014.json").is_file()]
    if not found:
        raise UserError(
            f"--splits: {coco_root} has neither {' nor '.join(DEFAULT_SPLITS)}; name its splits, or give the folder "
            "with --coco-root DIR"
        )
    return found
