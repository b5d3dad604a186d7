"""A recipe's training on one synthetic batch: the real loop, objective, engine and averages, and what a step costs."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ifvit.benchmark.part_clock import PartClock
from ifvit.benchmark.plain_engine import PlainEngine
from ifvit.config.schema import ModelConfig, Recipe
from ifvit.data.batch import Batch
from ifvit.diffusion.objective import Objective
from ifvit.diffusion.schedule import NoiseSchedule
from ifvit.model.attention import activate
from ifvit.model.attention_cache import user_cache_folder
from ifvit.model.attention_choice import choose_for_training, synchronise
from ifvit.model.uvit import UViT
from ifvit.runtime.devices import TRAINING_DTYPES
from ifvit.training.ema import Ema
from ifvit.training.engine import DeepSpeedEngine, num_micro_batches
from ifvit.training.loop import StepParts, never, train
from ifvit.training.phases import OPTIMIZER, Phases
from ifvit.training.state import Hook, TrainState

AVERAGES = "ema"
PARTS = ("forward", "backward", "optimizer", AVERAGES)  # of a step; the rest is drawing noise and the loop itself
MustSkip = Callable[[TrainState, torch.Tensor], torch.Tensor | None]
MakeEngine = Callable[[UViT, Recipe, int], DeepSpeedEngine | PlainEngine]  # the number of ranks


@dataclass(frozen=True)
class Window:
    """Some steps in a row.

    Attributes:
        step_seconds: of one step.
        part_seconds: of one step, by PARTS.
        step_memory_gb: what the steps had at most beside what stays; 0 on a CPU.
    """

    step_seconds: float
    part_seconds: dict[str, float]
    step_memory_gb: float


class SyntheticTraining:
    """Trains `recipe` on `device`, that of one of `world_size` ranks. With DeepSpeed the process group must exist.

    Attributes:
        attention_backend: the one in use.
        batch: this rank's rows, the same in each step; noise is drawn anew.
        batches: it, for ever.
        state_memory_gb: of what stays between steps, the moments from the first step on; 0 on a CPU.
    """

    def __init__(self, recipe: Recipe, device: torch.device, make_engine: MakeEngine, world_size: int = 1) -> None:
        self.recipe = recipe
        self.device = device
        self.dtype = TRAINING_DTYPES[recipe.train.precision]
        self.attention_backend = choose_for_training(
            recipe.runtime.attention_backend,
            recipe.model,
            recipe.train.micro_batch_size,
            self.dtype,
            device,
            user_cache_folder(),
        ).backend
        gc.collect()  # an engine that is no longer used refers to itself
        memory_before = allocated_memory(device)
        torch.manual_seed(recipe.seed)
        self.engine = make_engine(UViT(recipe.model).to(device), recipe, world_size)
        self.clock = PartClock(device)
        self.ema = TimedEma(self.engine, recipe.ema.decays, self.clock)
        self.state_memory_gb = allocated_memory(device) - memory_before
        self.objective = synthetic_objective(recipe, device)
        self.batch = synthetic_batch(recipe.model, recipe.train.global_batch_size // world_size, device)
        self.batches = OneBatch(self.batch)
        self.phases = Phases()
        self.state = TrainState()

    def run_window(self, num_steps: int, hooks: Sequence[Hook] = ()) -> Window:
        """Train `num_steps` steps, watched by `hooks`."""
        memory_before = allocated_memory(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.phases.listener = self.clock.enter
        self.clock.start()
        synchronise(self.device)
        start = time.perf_counter()
        self.train_steps(num_steps, hooks)
        synchronise(self.device)
        seconds = (time.perf_counter() - start) / num_steps
        parts = self.clock.seconds()
        self.state_memory_gb += allocated_memory(self.device) - memory_before  # moments, which the first step makes
        return Window(
            seconds,
            {part: parts[part] / num_steps for part in PARTS},
            peak_memory(self.device) - allocated_memory(self.device),
        )

    def train_steps(self, num_steps: int, hooks: Sequence[Hook] = (), must_skip: MustSkip = never) -> None:
        """The training loop, for `num_steps` steps."""
        activate(self.attention_backend, self.dtype)
        config = self.recipe.train.model_copy(update={"max_steps": self.state.step + num_steps})
        optimizer = self.recipe.optimizer
        parts = StepParts(
            config, optimizer, self.engine, self.ema, self.objective, self.batches, self.phases, must_skip
        )
        train(self.state, parts, hooks)


class OneBatch:
    """The same batch for ever, whatever its number."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return self.batch

    def go_on_at(self, number: int) -> None:
        """Nothing changes."""


class TimedEma(Ema):
    """Averages whose time is told from the optimiser's."""

    def __init__(self, engine: DeepSpeedEngine | PlainEngine, decays: tuple[float, ...], clock: PartClock) -> None:
        super().__init__(engine.fragments, decays)
        self.clock = clock

    def update(self) -> None:
        self.clock.enter(AVERAGES)
        super().update()
        self.clock.enter(OPTIMIZER)


def deepspeed_engine(model: UViT, recipe: Recipe, world_size: int) -> DeepSpeedEngine:
    """As training has it."""
    return DeepSpeedEngine(model, recipe.train, recipe.optimizer, recipe.runtime, world_size)


def plain_engine(model: UViT, recipe: Recipe, world_size: int) -> PlainEngine:
    """The reference, on one rank; in float32 whatever the recipe says."""
    assert world_size == 1, "the plain loop reduces nothing"
    return PlainEngine(model, recipe.optimizer, num_micro_batches(recipe.train, world_size))


def with_batch_size(recipe: Recipe, batch_size: int) -> Recipe:
    """`recipe` with batches of `batch_size`, in one micro-batch."""
    sizes = {"global_batch_size": batch_size, "micro_batch_size": batch_size}
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=sizes)})


def synthetic_objective(recipe: Recipe, device: torch.device) -> Objective:
    """The recipe's, for latents of unit variance and an empty null prompt."""
    shape = recipe.model
    return Objective(
        NoiseSchedule(recipe.diffusion, device),
        1.0,
        torch.zeros(shape.num_text_tokens, shape.text_hidden_size, device=device),
        seed=recipe.seed,
        global_batch_size=recipe.train.global_batch_size,
    )


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


def allocated_memory(device: torch.device) -> float:
    """GB on a GPU now; 0 on a CPU, which does not count."""
    return torch.cuda.memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0


def peak_memory(device: torch.device) -> float:
    """GB on a GPU at most, since the peak was last reset; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
