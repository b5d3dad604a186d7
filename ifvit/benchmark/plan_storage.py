"""Disk that a run needs, and how often it should save."""

import math
from dataclasses import dataclass

from ifvit.benchmark.plan_request import PlanRequest

SECONDS_PER_HOUR = 3600
TAR_HEADER = 1024  # bytes that a member costs beside its content: a header and padding
TOKEN_ID_BYTES, FLOAT16 = 2, 2


@dataclass(frozen=True)
class Storage:
    """Bytes on disk."""

    checkpoint: int
    num_checkpoints: int  # at the most at once, the one being written included
    shards: int

    @property
    def checkpoints(self) -> int:
        return self.checkpoint * self.num_checkpoints


@dataclass(frozen=True)
class CheckpointInterval:
    """When saving loses least: Young, sqrt(2 x seconds a save costs x seconds between failures)."""

    seconds_of_save: float
    hours_between_failures: float  # of all GPUs together
    seconds: float

    def steps(self, seconds_per_step: float) -> int:
        return max(1, round(self.seconds / seconds_per_step))


def storage(request: PlanRequest, num_parameters: int) -> Storage:
    """Checkpoints hold float32 weights, both moments and one average for each decay."""
    recipe = request.recipe
    shape = recipe.model
    latents = 2 * FLOAT16 * shape.in_channels * shape.sample_size**2
    if recipe.data.text_storage == "embeddings":
        caption = FLOAT16 * shape.num_text_tokens * shape.text_hidden_size + TAR_HEADER
        text = request.assumptions.num_captions * caption
    else:
        text = request.assumptions.num_captions * TOKEN_ID_BYTES * shape.num_text_tokens + TAR_HEADER
    return Storage(
        checkpoint=4 * num_parameters * (3 + len(recipe.ema.decays)),
        num_checkpoints=recipe.checkpoint.keep_last + 1,
        shards=request.assumptions.num_images * (latents + text + 2 * TAR_HEADER),
    )


def checkpoint_interval(request: PlanRequest, checkpoint_bytes: int) -> CheckpointInterval:
    """For a save that the step waits for."""
    seconds_of_save = checkpoint_bytes / (1e9 * request.assumptions.disk)
    hours = request.assumptions.hours_between_failures / request.world_size
    return CheckpointInterval(seconds_of_save, hours, math.sqrt(2 * seconds_of_save * hours * SECONDS_PER_HOUR))
