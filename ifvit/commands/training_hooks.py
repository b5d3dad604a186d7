"""What watches a training run from outside its loop: metrics, checkpoints, sample grids."""

from functools import partial
from pathlib import Path

import torch

from ifvit.checkpoint.hook import CheckpointHook
from ifvit.commands.rollback import RollbackHook
from ifvit.commands.run_report import RunReport
from ifvit.config.schema import Recipe
from ifvit.data.batch_stream import BatchStream
from ifvit.data.online_text import with_prompt_embeds
from ifvit.data.training_data import TrainingData
from ifvit.data.validation_set import ValidationSet
from ifvit.diffusion.objective import Objective
from ifvit.encoders.loading import Encoders
from ifvit.model.flops import count_flops
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.run_directory import RunDirectory
from ifvit.sampling.preview import PreviewHook
from ifvit.sampling.sampler import Sampler
from ifvit.training.averaged_model import AveragedModel
from ifvit.training.bad_steps_hook import BadStepsHook
from ifvit.training.device_use import DeviceUse
from ifvit.training.ema import Ema
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.hook_time import HookTime
from ifvit.training.meter import Meter
from ifvit.training.metrics import MetricsHook
from ifvit.training.phases import CHECKPOINT, METRICS, SAMPLING, PhaseHook, Phases
from ifvit.training.replicas import ReplicaHook
from ifvit.training.state import Hook
from ifvit.training.step_times import StepTimes
from ifvit.training.stragglers import Stragglers
from ifvit.training.timestep_losses import TimestepLosses
from ifvit.training.validation import ValidationLoss
from ifvit.training.weight_norms import WeightNorms


def make_hooks(
    recipe: Recipe,
    directory: RunDirectory,
    data: TrainingData,
    validation_set: ValidationSet | None,
    encoders: Encoders,
    objective: Objective,
    engine: DeepSpeedEngine,
    ema: Ema,
    batches: BatchStream,
    bad_steps: BadStepsHook,
    phases: Phases,
    ranks: Ranks,
    device: torch.device,
    report: RunReport | None,
) -> list[Hook]:
    """Metrics before checkpoints, so that a step is in the log before a checkpoint says it is done. Rollbacks last."""
    forward_gflops = count_flops(recipe.model)["gflops_with_attention"]
    meters: list[Meter] = [
        TimestepLosses(recipe.diffusion.num_train_timesteps, ranks, device),
        WeightNorms(engine.fragments, engine.is_sharded, recipe),
        DeviceUse(recipe, ranks, device, forward_gflops),
        checkpoint_time := HookTime("checkpoint"),
    ]
    if every := recipe.tracking.step_times_every_steps:
        stragglers = Stragglers(recipe.tracking.straggler_ratio, ranks)
        meters.append(StepTimes(phases, every, ranks, device, stragglers))
    is_averaged_used = bool(recipe.sampling.prompts) or validation_set is not None
    averaged = AveragedModel(recipe, engine, ema, device) if is_averaged_used else None
    if averaged is not None and validation_set is not None:
        encode = partial(with_prompt_embeds, text_encoder=encoders.text_encoder)
        meters.append(ValidationLoss(recipe, validation_set, objective, encode, averaged, ranks, device))
    log, progress = (report.log, report.progress) if report else (None, None)
    metrics = MetricsHook(recipe, ranks, meters, log, progress)
    saves = CheckpointHook(
        directory.checkpoints, recipe, engine, ema, ranks, bad_steps.settle, partial(phases.took, CHECKPOINT)
    )
    hooks: list[Hook] = [
        bad_steps,
        PhaseHook(metrics, METRICS, phases),
        PhaseHook(checkpoint_time.around(saves), CHECKPOINT, phases),
    ]
    if averaged is not None and recipe.sampling.prompts:
        sampler = Sampler(
            averaged.model,
            encoders.autoencoder,
            encoders.text_encoder.encode_prompts,
            data.null_prompt_embeds,
            data.scaling_factor(recipe.encoders.scaling_factor),
            recipe.model,
            recipe.diffusion,
            recipe.sampling,
            device,
        )
        on_grid = report.grid_written if report else ignore_grid
        preview_hook = PreviewHook(directory.samples, recipe, sampler, averaged, ranks, on_grid, encoders.notice)
        hooks.append(PhaseHook(preview_hook, SAMPLING, phases))
    counting: list[Hook] = [metrics, saves]
    rollbacks = RollbackHook(
        recipe.train.bad_steps, directory, engine, ema, batches, bad_steps, saves, counting, phases, ranks, report
    )
    if (every := recipe.runtime.replica_check_every_steps) and ranks.world_size > 1:
        hooks.insert(0, ReplicaHook(engine, ranks, every))  # what differs is not to be saved
    return [*hooks, rollbacks]


def ignore_grid(path: Path, step: int) -> None:
    """Only rank 0 writes grids."""
