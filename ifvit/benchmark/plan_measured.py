"""What a few real steps hold and take: DeepSpeed's engine on synthetic batches, on this process's device.

Memory is that of tensors, each followed from the operation that makes it until it is freed.
"""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ifvit.benchmark.device_rates import memory_rate, product_rate
from ifvit.benchmark.live_memory import LiveBytes
from ifvit.benchmark.save_time import never_bad
from ifvit.benchmark.synthetic_training import SyntheticTraining, deepspeed_engine
from ifvit.checkpoint.hook import CheckpointHook
from ifvit.config.schema import Recipe
from ifvit.model.attention_cache import user_cache_folder
from ifvit.model.attention_choice import choose_for_training
from ifvit.runtime.devices import TRAINING_DTYPES
from ifvit.runtime.distributed import Ranks
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.fragments import MOMENTS
from ifvit.training.phases import BACKWARD, FORWARD
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


def state_bytes(training: SyntheticTraining) -> dict[str, int]:
    """By part; a tensor that serves as two counts as the first."""
    engine = training.engine
    assert isinstance(engine, DeepSpeedEngine)
    seen: set[int] = set()
    shards = [getattr(parameter, "ds_tensor", parameter) for parameter in engine.module.parameters()]
    averages = training.ema.averages.values()
    return {
        "weights": new_bytes(seen, shards),
        "fp32 master": new_bytes(seen, (fragment.flat for fragment in engine.fragments)),
        "Adam moments": new_bytes(seen, (engine.moment(f, key) for f in engine.fragments for key in MOMENTS)),
        "EMA": new_bytes(seen, (average for of_decay in averages for average in of_decay)),
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
    recipe = with_chosen_attention(recipe, device)  # here, because who counts tensors makes what is timed slower
    with LiveBytes(device) as live:
        training = SyntheticTraining(recipe, device, deepspeed_engine, ranks.world_size)
        training.train_steps(WARM_UP_STEPS)
        state = state_bytes(training)
        live.peak = live.now
        first: dict[str, int] = {}  # by phase: what was alive when it began for the first time

        def begins(phase: str) -> None:
            first.setdefault(phase, live.now)

        training.phases.listener = begins
        training.train_steps(1)
    draws = training.objective.draw(0, training.batch)
    given = [*vars(training.batch).values(), *vars(draws).values()]
    batch = sum(tensor.nbytes for tensor in given if isinstance(tensor, Tensor))
    products, bandwidth = product_rate(recipe, device), memory_rate(device)
    return Measured(
        state=state,
        step_peak=live.peak - sum(state.values()) - batch,
        kept=first[BACKWARD] - first[FORWARD],
        seconds_per_step=statistics.median(training.run_window(1).step_seconds for _ in range(num_steps)),
        product_flops_per_second=(products + product_rate(recipe, device)) / 2,
        bytes_per_second=(bandwidth + memory_rate(device)) / 2,
        checkpoint=checkpoint_bytes(training, ranks, folder),
    )


def with_chosen_attention(recipe: Recipe, device: torch.device) -> Recipe:
    """`recipe` with the attention backend that training takes on `device`."""
    dtype, size = TRAINING_DTYPES[recipe.train.precision], recipe.train.micro_batch_size
    name = recipe.runtime.attention_backend
    choice = choose_for_training(name, recipe.model, size, dtype, device, user_cache_folder())
    return recipe.model_copy(
        update={"runtime": recipe.runtime.model_copy(update={"attention_backend": choice.backend})}
    )


def checkpoint_bytes(training: SyntheticTraining, ranks: Ranks, folder: Path) -> int:
    """Of the tensors in a checkpoint that is written to `folder`."""
    assert isinstance(training.engine, DeepSpeedEngine)
    hook = CheckpointHook(folder, training.recipe, training.engine, training.ema, ranks, never_bad)
    hook.on_start(TrainState())
    hook.on_stop(training.state)
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
