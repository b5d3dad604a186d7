"""Train a recipe. The run lives in {runtime.runs_root}/{name}; the same command goes on with it where it stopped.

One process, or several: torchrun --nproc-per-node 2 -m ifvit train RECIPE
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

import torch

from ifvit.checkpoint.hook import CheckpointHook
from ifvit.checkpoint.load import Checkpoint, check_model, newest_checkpoint, read_weights, restore_state
from ifvit.checkpoint.manifest import read_manifest
from ifvit.commands.run_report import RunReport
from ifvit.config.arguments import add_recipe_arguments, recipe_from
from ifvit.config.schema import Recipe
from ifvit.data.loader import BatchLoader
from ifvit.data.online_text import with_prompt_embeds
from ifvit.data.shard_check import check_shards
from ifvit.data.shard_set import ShardSet
from ifvit.diffusion.objective import Objective
from ifvit.diffusion.schedule import NoiseSchedule
from ifvit.encoders.loading import Encoders, load_encoders
from ifvit.model import weights as model_folder
from ifvit.model.attention import set_attention_backend
from ifvit.model.flops import count_flops
from ifvit.model.uvit import UViT
from ifvit.runtime.agreement import agreed_errors, on_first_rank
from ifvit.runtime.distributed import Ranks, find_ranks, start_process_group, stop_process_group, training_device
from ifvit.runtime.run_directory import RunDirectory, open_run
from ifvit.runtime.seeding import derived_seed
from ifvit.runtime.tracking import set_mlflow_environment
from ifvit.sampling.preview import PreviewHook
from ifvit.sampling.sampler import Sampler
from ifvit.training.ema import Ema
from ifvit.training.engine import DeepSpeedEngine, num_micro_batches
from ifvit.training.loop import train
from ifvit.training.metrics import MetricsHook, NonFiniteLossError
from ifvit.training.state import Hook, TrainState
from ifvit.training.stopping import StopHook

NON_FINITE_EXIT_CODE = 3
INTERRUPTED_EXIT_CODE = 75  # saved; the same command goes on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    recipe = recipe_from(arguments)
    set_mlflow_environment()  # on every rank and before DeepSpeed, which imports mlflow
    ranks = find_ranks()
    device = training_device(ranks)
    start_process_group(ranks, device, recipe.runtime.watchdog_seconds)
    try:
        return run_training(recipe, ranks, device)
    except NonFiniteLossError as stop:
        if ranks.rank == 0:
            print(f"stopped: {stop}; the last checkpoint is from before", file=sys.stderr)
        return NON_FINITE_EXIT_CODE
    finally:
        stop_process_group()


def run_training(recipe: Recipe, ranks: Ranks, device: torch.device) -> int:
    """Start or continue the run of `recipe` on these ranks; the exit code. The process group must exist."""
    with agreed_errors(ranks):
        num_micro_batches(recipe.train, ranks.world_size)
        shards = ShardSet.open(Path(recipe.data.shards_root) / recipe.data.split)
        encoders = load_encoders(recipe, device)
        check_shards(recipe, shards, encoders.autoencoder.identity, encoders.text_encoder.identity)
        recipe = with_scaling_factor(recipe, shards.scaling_factor)
        backend = set_attention_backend(recipe.runtime.attention_backend, device, training_dtype(recipe))
        directory = RunDirectory(Path(recipe.runtime.runs_root) / recipe.name)
        if ranks.rank == 0:
            directory, _ = open_run(recipe)  # holds the lock from here on
    checkpoint = shared_checkpoint(directory, ranks)
    with agreed_errors(ranks):
        model = initial_model(recipe, checkpoint).to(device)
    engine = DeepSpeedEngine(model, recipe.train, recipe.optimizer, recipe.runtime, ranks.world_size)
    ema = Ema(engine.fragments, recipe.ema.decays)
    state = TrainState()
    if checkpoint is not None:
        restore_state(checkpoint, state, engine, ema)
    if state.step >= recipe.train.max_steps:
        if ranks.rank == 0:
            print(f"{directory.path}: at step {state.step} of {recipe.train.max_steps}, nothing left to do")
        return 0
    with ExitStack() as stack:
        report = None
        if ranks.rank == 0:
            report = RunReport(recipe, directory, shards, encoders, state, ranks, device, backend)
            stack.enter_context(report)
        loader = stack.enter_context(
            BatchLoader(
                shards,
                recipe.seed,
                recipe.train.global_batch_size,
                recipe.train.caption_dropout_prob,
                ranks.rank,
                ranks.world_size,
                first_step=state.step,
            )
        )
        objective = Objective(
            NoiseSchedule(recipe.diffusion, device),
            shards.scaling_factor,
            shards.null_prompt_embeds.to(device),
            seed=recipe.seed,
            global_batch_size=recipe.train.global_batch_size,
            first_row=ranks.rank * recipe.train.global_batch_size // ranks.world_size,
        )
        batches = (with_prompt_embeds(batch.to(device), encoders.text_encoder) for batch in loader)
        hooks = make_hooks(recipe, directory, shards, encoders, engine, ema, ranks, device, report)
        train(state, engine, objective, batches, ema, hooks, recipe.train, recipe.optimizer)
    return 0 if state.stop_reason is None else INTERRUPTED_EXIT_CODE


def make_hooks(
    recipe: Recipe,
    directory: RunDirectory,
    shards: ShardSet,
    encoders: Encoders,
    engine: DeepSpeedEngine,
    ema: Ema,
    ranks: Ranks,
    device: torch.device,
    report: RunReport | None,
) -> list[Hook]:
    """Metrics before checkpoints, so that a step is in the log before a checkpoint says it is done."""
    forward_gflops = count_flops(recipe.model)["gflops_with_attention"]
    log, progress = (report.log, report.progress) if report else (None, None)
    hooks: list[Hook] = [
        StopHook(ranks),
        MetricsHook(recipe, ranks, forward_gflops, log, progress),
        CheckpointHook(directory.checkpoints, recipe, engine, ema, ranks),
    ]
    if recipe.sampling.prompts:
        preview_model = UViT(recipe.model).to(device)
        sampler = Sampler(
            preview_model,
            encoders.autoencoder,
            encoders.text_encoder.encode_prompts,
            shards.null_prompt_embeds,
            shards.scaling_factor,
            recipe.model,
            recipe.diffusion,
            recipe.sampling,
            device,
        )
        on_grid = report.grid_written if report else ignore_grid
        hooks.append(
            PreviewHook(directory.samples, recipe, sampler, preview_model, engine, ema, ranks, on_grid, encoders.notice)
        )
    return hooks


def ignore_grid(path: Path, step: int) -> None:
    """Only rank 0 writes grids."""


def with_scaling_factor(recipe: Recipe, scaling_factor: float) -> Recipe:
    """The recipe with the shards' scaling factor where it leaves it to them, so that the run's recipe says it."""
    encoders = recipe.encoders.model_copy(update={"scaling_factor": scaling_factor})
    return recipe.model_copy(update={"encoders": encoders})


def training_dtype(recipe: Recipe) -> torch.dtype:
    return torch.bfloat16 if recipe.train.precision == "bf16" else torch.float32


def shared_checkpoint(directory: RunDirectory, ranks: Ranks) -> Checkpoint | None:
    """The newest intact checkpoint on every rank; rank 0 alone reads all of it to verify it."""

    def folder_of_newest() -> Path | None:
        newest = newest_checkpoint(directory.checkpoints)
        return None if newest is None else newest.folder

    folder = on_first_rank(ranks, folder_of_newest)
    return None if folder is None else Checkpoint(folder, read_manifest(folder))


def initial_model(recipe: Recipe, checkpoint: Checkpoint | None) -> UViT:
    """The model that training starts from: the checkpoint's weights, those of `train.init_from`, or seeded random."""
    torch.manual_seed(derived_seed(recipe.seed, "initial weights"))
    model = UViT(recipe.model)
    if checkpoint is not None:
        check_model(checkpoint, recipe.model)
        model_folder.load_weights(model, read_weights(checkpoint), str(checkpoint.folder))
    elif recipe.train.init_from is not None:
        folder = Path(recipe.train.init_from)
        model_folder.load_weights(model, model_folder.read_weights(folder), f"train.init_from: {folder}")
    return model
