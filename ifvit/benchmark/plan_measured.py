"""What a few real steps hold and take: DeepSpeed's engine on synthetic batches, on this process's device.

Memory is that of tensors, each followed from the operation that makes it until it is freed.
"""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ifvit.benchmark.live_memory import LiveBytes
from ifvit.benchmark.synthetic_training import synthetic_batch, synthetic_objective
from ifvit.checkpoint.hook import CheckpointHook
from ifvit.config.schema import Recipe
from ifvit.model.attention_choice import synchronise
from ifvit.model.uvit import UViT
from ifvit.runtime.devices import TRAINING_DTYPES
from ifvit.runtime.distributed import Ranks
from ifvit.training.ema import Ema
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.fragments import MOMENTS
from ifvit.training.state import TrainState

WARM_UP_STEPS = 2  # the first makes the moments


@dataclass(frozen=True)
class Measured:
    """Of one rank, in bytes and seconds.

    Attributes:
        state: bytes by part, by the names of a plan's parts.
        step_peak: the most that a step held beside them, gradients included.
        kept: what the forward pass of one micro-batch left for the backward pass.
        product_flops_per_second: of this device's matrix products, in the recipe's precision.
        bytes_per_second: that this device's memory reads and writes.
        checkpoint: bytes on disk.
    """

    state: dict[str, int]
    step_peak: int
    kept: int
    seconds_per_step: float
    product_flops_per_second: float
    bytes_per_second: float
    checkpoint: int


class MeasuredTraining:
    """The engine, the averages and a synthetic batch of the recipe; `step` is one step of the loop, without hooks."""

    def __init__(self, recipe: Recipe, ranks: Ranks, device: torch.device) -> None:
        self.recipe = recipe
        self.ranks = ranks
        torch.manual_seed(recipe.seed)
        self.engine = DeepSpeedEngine(
            UViT(recipe.model).to(device), recipe.train, recipe.optimizer, recipe.runtime, ranks.world_size
        )
        self.ema = Ema(self.engine.fragments, recipe.ema.decays)
        num_rows = recipe.train.global_batch_size // ranks.world_size
        self.objective = synthetic_objective(recipe, device)
        self.batch = synthetic_batch(recipe.model, num_rows, device)
        self.draws = self.objective.draw(0, self.batch)

    def step(self, live: LiveBytes | None = None) -> int:
        """The bytes that the first forward pass leaves for its backward pass, by `live`; 0 without it."""
        kept = 0
        size = self.recipe.train.micro_batch_size
        for start in range(0, len(self.batch), size):
            rows = start, start + size
            before = live.now if live else 0
            loss = self.objective.loss(self.engine.model, self.batch.rows(*rows), self.draws.rows(*rows))
            kept = kept or (live.now - before if live else 0)
            self.engine.backward(loss / self.engine.num_micro_batches)
        self.engine.step(self.recipe.optimizer.learning_rate)
        self.ema.update()
        return kept

    def state_bytes(self) -> dict[str, int]:
        """By part; a tensor that serves as two counts as the first."""
        seen: set[int] = set()
        fragments = self.engine.fragments
        shards = [getattr(parameter, "ds_tensor", parameter) for parameter in self.engine.module.parameters()]
        return {
            "weights": new_bytes(seen, shards),
            "fp32 master": new_bytes(seen, (fragment.flat for fragment in fragments)),
            "Adam moments": new_bytes(seen, (self.engine.moment(f, key) for f in fragments for key in MOMENTS)),
            "EMA": new_bytes(seen, (average for averages in self.ema.averages.values() for average in averages)),
        }


def new_bytes(seen: set[int], tensors: Iterable[Tensor]) -> int:
    """Of the storages of `tensors` that are not in `seen`, where they are put."""
    total = 0
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += storage.nbytes()
    return total


def measure_training(recipe: Recipe, ranks: Ranks, device: torch.device, num_steps: int, folder: Path) -> Measured:
    """Collective. The process group must exist; a checkpoint is written to `folder`, which all ranks see."""
    with LiveBytes() as live:
        training = MeasuredTraining(recipe, ranks, device)
        for _ in range(WARM_UP_STEPS):
            training.step()
        state = training.state_bytes()
        live.peak = live.now
        kept = training.step(live)
    given = [*vars(training.batch).values(), *vars(training.draws).values()]
    batch = sum(tensor.nbytes for tensor in given if isinstance(tensor, Tensor))
    products, bandwidth = product_rate(recipe, device), memory_rate(device)
    seconds = []
    for _ in range(num_steps):
        synchronise(device)
        start = time.perf_counter()
        training.step()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return Measured(
        state=state,
        step_peak=live.peak - sum(state.values()) - batch,
        kept=kept,
        seconds_per_step=statistics.median(seconds),
        product_flops_per_second=(products + product_rate(recipe, device)) / 2,
        bytes_per_second=(bandwidth + memory_rate(device)) / 2,
        checkpoint=checkpoint_bytes(training, folder),
    )


def product_rate(recipe: Recipe, device: torch.device) -> float:
    """FLOPs per second of the MLP's first product at the recipe's micro-batch size."""
    shape = recipe.model
    dtype = TRAINING_DTYPES[recipe.train.precision]
    rows = recipe.train.micro_batch_size * shape.num_image_tokens
    tokens = torch.randn(rows, shape.hidden_size, device=device, dtype=dtype)
    weight = torch.randn(shape.hidden_size, int(shape.hidden_size * shape.mlp_ratio), device=device, dtype=dtype)
    return 2 * rows * weight.numel() / best_seconds(lambda: tokens @ weight, device)


def memory_rate(device: torch.device) -> float:
    """Bytes per second, read and written, of a copy that no cache holds."""
    source = torch.ones(64 * 2**20, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_seconds(lambda: target.copy_(source), device)


def best_seconds(work: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    work()
    times = []
    for _ in range(repeats):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times)


def checkpoint_bytes(training: MeasuredTraining, folder: Path) -> int:
    """Of the tensors in a checkpoint that is written to `folder`."""
    recipe, engine, ema, ranks = training.recipe, training.engine, training.ema, training.ranks
    hook = CheckpointHook(folder, recipe, engine, ema, ranks, settle=lambda state: True)
    state = TrainState()
    hook.on_start(state)
    state.step = 1
    hook.on_stop(state)
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
