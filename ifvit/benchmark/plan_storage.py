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
    num_checkpoints: int  # at the most at once, the one being written and milestones included
    shards: int

    @property
    def checkpoints(self) -> int:
        return self.checkpoint * self.num_checkpoints


@dataclass(frozen=True)
class CheckpointInterval:
    """When saving loses least: Young, sqrt(2 x seconds that a save costs x seconds between failures).

    Attributes:
        seconds_of_save: that the step waits for.
        seconds_of_write: until the checkpoint is on disk; the next save waits for it.
        hours_between_failures: of all GPUs together.
    """

    seconds_of_save: float
    seconds_of_write: float
    hours_between_failures: float

    @property
    def seconds(self) -> float:
        young = math.sqrt(2 * self.seconds_of_save * self.hours_between_failures * SECONDS_PER_HOUR)
        return max(young, self.seconds_of_write)

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
    milestones = recipe.train.max_steps // (recipe.checkpoint.milestone_every_steps or recipe.train.max_steps + 1)
    return Storage(
        checkpoint=4 * num_parameters * (3 + len(recipe.ema.decays)),
        num_checkpoints=recipe.checkpoint.keep_last + milestones + 1,
        shards=request.assumptions.num_images * (latents + text + 2 * TAR_HEADER),
    )


def checkpoint_interval(request: PlanRequest, checkpoint_bytes: int) -> CheckpointInterval:
    """An asynchronous save costs the copy of each rank's share to its host, another one all of the writing."""
    write = checkpoint_bytes / (1e9 * request.assumptions.disk)
    copy = checkpoint_bytes / request.world_size / (1e9 * request.assumptions.host_link)
    cost = copy if request.recipe.checkpoint.asynchronous else write
    return CheckpointInterval(cost, write, request.assumptions.hours_between_failures / request.world_size)
