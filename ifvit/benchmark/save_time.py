"""What saving a checkpoint costs: how long training stands still, and how long until the files are on the disk."""

import time
from pathlib import Path
from typing import Any

import torch

from ifvit.benchmark.checked_cells import cell_recipe
from ifvit.benchmark.synthetic_training import SyntheticTraining, deepspeed_engine, with_batch_size
from ifvit.checkpoint.hook import CheckpointHook
from ifvit.model.attention_choice import synchronise
from ifvit.runtime.distributed import Ranks
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.state import TrainState


def never_bad(state: TrainState) -> bool:
    """A synthetic step is as good as any."""
    return True


def check_saves(device: torch.device, folder: Path, num_saves: int) -> dict[str, Any]:
    """Of the paper's cell in bf16, its checkpoints below `folder`."""
    recipe = with_batch_size(cell_recipe("cross_intermediate", device), 4)
    training = SyntheticTraining(recipe, device, deepspeed_engine)
    training.run_window(2)
    return {"failure": None, **measure_saves(training, folder, num_saves)}


def measure_saves(training: SyntheticTraining, folder: Path, num_saves: int) -> dict[str, Any]:
    """Seconds that training stands still for a save beside it and for one that it waits for, in the order made."""
    assert isinstance(training.engine, DeepSpeedEngine)
    device = training.device
    stalls: list[float] = []
    whole: list[float] = []
    synchronous: list[float] = []
    for is_asynchronous in (True, False):
        config = training.recipe.checkpoint.model_copy(update={"asynchronous": is_asynchronous})
        recipe = training.recipe.model_copy(update={"checkpoint": config})
        hook = CheckpointHook(
            folder / ("asynchronous" if is_asynchronous else "synchronous"),
            recipe,
            training.engine,
            training.ema,
            Ranks(),
            never_bad,
        )
        hook.on_start(training.state)
        for _ in range(num_saves):
            training.train_steps(1)
            synchronise(device)  # the step's own work is no part of the save
            start = time.perf_counter()
            hook.save(training.state)
            (stalls if is_asynchronous else synchronous).append(time.perf_counter() - start)
            hook.finish()
            if is_asynchronous:
                whole.append(time.perf_counter() - start)
    return {
        "asynchronous_stall_seconds": stalls,
        "asynchronous_save_seconds": whole,
        "synchronous_save_seconds": synchronous,
        "checkpoint_bytes": sum(file.stat().st_size for file in (folder / "synchronous").rglob("*") if file.is_file())
        / len(list((folder / "synchronous").glob("step-*"))),
    }
