"""Fusion schedules: which blocks see text. A schedule is data that the backbone reads; no model code changes with it.

To add one, write a class here with its own fields and a `plan`, and add it to FusionSchedule. A recipe can then say
`model.fusion: {schedule: <name>, ...}`, and every contract test that walks the schedules covers it.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from ifvit.config.errors import field_error

Sees = Literal["image", "fused"]


@dataclass(frozen=True)
class FusionPlan:
    """What the blocks see. The out-path mirrors the in-path, so long skips always match; the mid block is fused."""

    in_path: tuple[Sees, ...]  # outermost block first
    num_text_blocks: int = 0

    @property
    def out_path(self) -> tuple[Sees, ...]:
        return self.in_path[::-1]


class Section(BaseModel):
    """A part of a recipe: immutable, and a field that nobody reads is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def refuse_unread(self, field: str, why: str, path: str = "") -> None:
        """Raises the error of `field`, at `path` below the section that raises, unless it has its default.

        `why` ends "does nothing ...". The default is no error: a run's own recipe gives every field.
        """
        value = getattr(self, field)
        if value != type(self).model_fields[field].default:
            raise field_error(path + field, f"is {value} and does nothing {why}; give that, or leave this out")


class EarlyFusion(Section):
    """Text meets image in the first block: the original U-ViT (arXiv 2209.12152)."""

    schedule: Literal["early"] = "early"

    def plan(self, depth: int) -> FusionPlan:
        fused: tuple[Sees, ...] = ("fused",)
        return FusionPlan(in_path=fused * (depth // 2))


class IntermediateFusion(Section):
    """The outer blocks stay image-only while text is refined by blocks of its own (arXiv 2403.16530, section 3.1)."""

    schedule: Literal["intermediate"] = "intermediate"
    num_image_blocks: NonNegativeInt = 4  # N_image, on each side of the U
    num_text_blocks: NonNegativeInt = 1  # N_text, on top of depth

    def plan(self, depth: int) -> FusionPlan:
        if self.num_image_blocks > depth // 2:
            raise field_error(
                "num_image_blocks", f"is {self.num_image_blocks}, must be at most depth / 2 = {depth // 2}"
            )
        image: tuple[Sees, ...] = ("image",)
        fused: tuple[Sees, ...] = ("fused",)
        in_path = image * self.num_image_blocks + fused * (depth // 2 - self.num_image_blocks)
        return FusionPlan(in_path, self.num_text_blocks)


FusionSchedule = Annotated[EarlyFusion | IntermediateFusion, Field(discriminator="schedule")]
