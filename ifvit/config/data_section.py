"""The recipe's section `data`: images, their shards, and what is trained on."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ifvit.config.addresses import is_address
from ifvit.config.errors import field_error
from ifvit.config.field_types import Folder, Lanes, Location, Name, Paths, Probability
from ifvit.config.fusion import Section

IMAGE_SOURCES = ("coco_root", "image_folder", "image_tars")


class MixedSet(Section):
    """One of several sets of shards that are trained on together."""

    shards_root: Location
    split: Name | None = None  # default: data.split
    weight: PositiveFloat  # its share of the samples is weight / sum of weights


class DataConfig(Section):
    """Where the images are, at most one of IMAGE_SOURCES, how their shards are stored, and what is trained on."""

    coco_root: Folder | None = None  # folder with annotations/captions_{split}2014.json and {split}2014/
    image_folder: Folder | None = None  # images at any depth; captions: NAME.txt beside NAME.jpg, or metadata.jsonl
    # WebDataset or img2dataset tars: a glob, or a list of globs. They are listed by their path below the folder that
    # all lie in: with tars of a second folder, added later, all shards must be made again.
    image_tars: Paths | None = None
    shards_root: Location | None = None  # shards are written to and read from {shards_root}/{split}; also an address
    split: Name = "train"  # the split that is trained on
    mixture: dict[Name, MixedSet] = Field(default={})  # instead of shards_root: sets trained on together
    cache_dir: Folder | None = None  # shards at an address are kept there while in use: on a disk of this machine
    cache_bytes: PositiveInt = 100_000_000_000  # the most that one run keeps there
    num_lanes: Lanes = 64  # of the order of shards at an address; best a multiple of the number of ranks
    text_storage: Literal["embeddings", "token_ids"] = "embeddings"  # token_ids: the text encoder runs in training
    samples_per_shard: PositiveInt = 1000
    encode_batch_size: PositiveInt = 16  # images per encoder call when shards are made; part of byte identity
    max_bad_share: Probability = 0.001  # of the samples, and of the captions, that may be unusable; more is an error
    # Samples that are not trained on, in {shards_root}/{validation_split}: validation_loss is measured on them.
    validation_split: Name | None = None  # None: off

    @model_validator(mode="after")
    def check_shards(self) -> "DataConfig":
        if self.shards_root is None and not self.mixture:
            raise field_error(
                "shards_root",
                "is missing: write it in the recipe or give it with --set data.shards_root=... (or give data.mixture)",
            )
        if self.shards_root is not None and self.mixture:
            raise field_error(
                "mixture", "is given beside data.shards_root: leave that out with --set data.shards_root=null"
            )
        return self

    @model_validator(mode="after")
    def check_validation(self) -> "DataConfig":
        if self.validation_split is None:
            return self
        if self.shards_root is None or is_address(self.shards_root):
            raise field_error("validation_split", "needs data.shards_root to be a folder, which has both splits")
        if self.validation_split == self.split:
            raise field_error("validation_split", f"is {self.split}, which is trained on; it must be another split")
        return self

    @model_validator(mode="after")
    def check_cache(self) -> "DataConfig":
        roots = [self.shards_root or "", *(part.shards_root for part in self.mixture.values())]
        if self.cache_dir is None and any(map(is_address, roots)):
            raise field_error(
                "cache_dir",
                "is missing: shards at an address are kept on a disk of this machine while they are in use; give a "
                "folder there with --set data.cache_dir=...",
            )
        return self

    @model_validator(mode="after")
    def check_one_source(self) -> "DataConfig":
        given = [name for name in IMAGE_SOURCES if getattr(self, name) is not None]
        if len(given) > 1:
            raise field_error(
                given[1],
                f"is given beside data.{given[0]}: one source is allowed, leave the other out with "
                f"--set data.{given[0]}=null",
            )
        return self
