"""Seconds per training step of several models, interleaved in one process so that they meet the same machine."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ifvit.benchmark.plain_engine import PlainEngine
from ifvit.config.schema import ModelConfig, Recipe
from ifvit.data.batch import Batch
from ifvit.diffusion.objective import Objective
from ifvit.diffusion.schedule import NoiseSchedule
from ifvit.model.uvit import UViT


@dataclass(frozen=True)
class StepTime:
    """Medians over the measured windows of one recipe."""

    name: str
    seconds_per_step: float
    seconds_of_windows: list[float]

    def ratio_to(self, other: "StepTime") -> float:
        """Median over the rounds of this window's time / the other's window beside it."""
        pairs = zip(self.seconds_of_windows, other.seconds_of_windows, strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)

    @property
    def spread(self) -> float:
        """(slowest - fastest window) / median."""
        return (max(self.seconds_of_windows) - min(self.seconds_of_windows)) / self.seconds_per_step


def measure_steps(
    recipes: Sequence[Recipe],
    batch_size: int,
    windows: int,
    steps_per_window: int,
    device: torch.device,
    on_window: Callable[[], object],
) -> list[StepTime]:
    """One `StepTime` per recipe: forward, backward and optimiser step in float32 on synthetic batches.

    Each round gives every recipe one window, after a warm-up window that is not counted.
    """
    steppers = [make_stepper(recipe, batch_size, device) for recipe in recipes]
    seconds: list[list[float]] = [[] for _ in recipes]
    for window in range(windows + 1):
        for stepper, measured in zip(steppers, seconds, strict=True):
            synchronise(device)
            start = time.perf_counter()
            for _ in range(steps_per_window):
                stepper()
            synchronise(device)
            if window > 0:
                measured.append((time.perf_counter() - start) / steps_per_window)
            on_window()
    return [
        StepTime(recipe.name, statistics.median(measured), measured)
        for recipe, measured in zip(recipes, seconds, strict=True)
    ]


def make_stepper(recipe: Recipe, batch_size: int, device: torch.device) -> Callable[[], None]:
    shape = recipe.model
    torch.manual_seed(recipe.seed)
    engine = PlainEngine(UViT(shape).to(device), recipe.optimizer)
    null_prompt_embeds = torch.zeros(shape.num_text_tokens, shape.text_hidden_size, device=device)
    objective = Objective(
        NoiseSchedule(recipe.diffusion, device), 1.0, null_prompt_embeds, seed=recipe.seed, global_batch_size=batch_size
    )
    batch = synthetic_batch(shape, batch_size, device)

    def step() -> None:
        engine.backward(objective.loss(engine.model, batch, objective.draw(0, batch)))
        engine.step(recipe.optimizer.learning_rate)

    return step


def synthetic_batch(shape: ModelConfig, batch_size: int, device: torch.device) -> Batch:
    """A batch of normal numbers, from torch's global generator."""
    return Batch(
        moments=torch.randn(batch_size, 2 * shape.in_channels, shape.sample_size, shape.sample_size, device=device),
        prompt_embeds=torch.randn(batch_size, shape.num_text_tokens, shape.text_hidden_size, device=device),
        input_ids=None,
        is_dropped=torch.zeros(batch_size, dtype=torch.bool, device=device),
        sample_ids=torch.arange(batch_size, device=device),
        global_rows=torch.arange(batch_size, device=device),
    )


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
