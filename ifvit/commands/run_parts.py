"""The parts of a training run, made once and handed to all that trains, watches or takes it back."""

from dataclasses import dataclass

import torch

from ifvit.commands.run_log import RunLog
from ifvit.config.schema import Recipe
from ifvit.data.batch_stream import Batches
from ifvit.diffusion.objective import Objective
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.run_directory import RunDirectory
from ifvit.training.bad_steps_hook import BadStepsHook
from ifvit.training.ema import Ema
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.loop import StepParts
from ifvit.training.phases import Phases


@dataclass(frozen=True)
class RunParts:
    """On one rank."""

    recipe: Recipe
    directory: RunDirectory
    ranks: Ranks
    device: torch.device
    engine: DeepSpeedEngine
    ema: Ema
    objective: Objective
    batches: Batches
    bad_steps: BadStepsHook
    phases: Phases
    log: RunLog | None  # on rank 0

    @property
    def step_parts(self) -> StepParts:
        """Those that the loop needs."""
        return StepParts(
            config=self.recipe.train,
            optimizer=self.recipe.optimizer,
            engine=self.engine,
            ema=self.ema,
            objective=self.objective,
            batches=self.batches,
            phases=self.phases,
            must_skip=self.bad_steps.must_skip,
        )
