"""Sample grids while a model trains: the recipe's prompts through the averaged weights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch.distributed as dist

from ifvit.config.schema import Recipe
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.files import atomic_file
from ifvit.runtime.outage import Outage
from ifvit.sampling.grid import labelled_grid
from ifvit.sampling.sampler import Sampler
from ifvit.training.averaged_model import AveragedModel
from ifvit.training.state import StepResult, TrainState


class PreviewHook:
    """Writes samples/step-....png every `sampling.every_steps` steps and at the end, unless the disk is full. The ranks
    share the prompts."""

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        sampler: Sampler,
        averaged: AveragedModel,
        ranks: Ranks,
        on_grid: Callable[[Path, int], None],
        notice: str = "",
    ) -> None:
        """`sampler` has the model of `averaged`; `on_grid` hears of each file on rank 0; `notice` is written on each
        sheet."""
        self.folder = folder
        self.recipe = recipe
        self.sampler = sampler
        self.averaged = averaged
        self.ranks = ranks
        self.on_grid = on_grid
        self.notice = notice
        self.sampled_step = 0
        self.outage = Outage(f"{folder}: sample grids", "without them")

    def on_start(self, state: TrainState) -> None:
        self.sampled_step = state.step

    def on_step(self, state: TrainState, result: StepResult) -> None:
        if self.is_due(state):
            self.write_grid(state.step)

    def is_due(self, state: TrainState) -> bool:
        """Whether the newest step gets a grid."""
        return state.step % self.recipe.sampling.every_steps == 0

    def on_stop(self, state: TrainState) -> None:
        if state.step > self.sampled_step and state.stop_reason is None:  # an interrupted run has no time for pictures
            self.write_grid(state.step)

    def write_grid(self, step: int) -> None:
        self.averaged.gather()
        prompts = self.recipe.sampling.prompts
        mine = prompts[self.ranks.rank :: self.ranks.world_size]
        images = list(self.sampler.sample(mine, self.recipe.seed)) if mine else []
        everyones: list[list[np.ndarray]] = [[] for _ in range(self.ranks.world_size)]
        dist.all_gather_object(everyones, images)
        if self.ranks.rank == 0:
            ordered = [everyones[index % self.ranks.world_size].pop(0) for index in range(len(prompts))]
            guidance_scale = self.recipe.sampling.guidance_scale
            weights = f"EMA {self.averaged.decay:g}"
            title = f"{self.recipe.name}, step {step}, guidance scale {guidance_scale:g}, {weights}. {self.notice}"
            path = self.folder / f"step-{step:08d}.png"
            grid = labelled_grid(np.stack(ordered), prompts, title)
            with self.outage.survived(), atomic_file(path) as file:
                grid.save(file, format="PNG")
            if not self.outage.is_on:
                self.on_grid(path, step)
        self.sampled_step = step
