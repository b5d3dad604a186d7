"""What watches a training run from outside its loop: metrics, checkpoints, sample grids, rollbacks."""

from functools import partial
from pathlib import Path

from ifvit.checkpoint.hook import CheckpointHook
from ifvit.commands.rollback import RollbackHook
from ifvit.commands.run_parts import RunParts
from ifvit.commands.training_inputs import TrainingInputs
from ifvit.model.flops import count_flops
from ifvit.sampling.preview import PreviewHook
from ifvit.sampling.sampler import Sampler
from ifvit.training.averaged_model import AveragedModel
from ifvit.training.device_use import DeviceUse
from ifvit.training.hook_time import HookTime
from ifvit.training.meter import Meter
from ifvit.training.metrics import MetricsHook
from ifvit.training.phases import CHECKPOINT, METRICS, SAMPLING, PhaseHook
from ifvit.training.replicas import replica_hooks
from ifvit.training.state import Hook
from ifvit.training.step_times import StepTimes
from ifvit.training.stragglers import Stragglers
from ifvit.training.timestep_losses import TimestepLosses
from ifvit.training.validation import ValidationLoss
from ifvit.training.weight_norms import WeightNorms


def make_hooks(parts: RunParts, inputs: TrainingInputs | None) -> list[Hook]:
    """Metrics before checkpoints, so that a step is in the log before a checkpoint says it is done. Rollbacks last.

    Without `inputs`, as where batches are synthetic, there are neither sample grids nor validations.
    """
    recipe, phases, ranks = parts.recipe, parts.phases, parts.ranks
    checkpoint_time = HookTime("checkpoint")
    meters = [*step_meters(parts), checkpoint_time]
    previews: list[Hook] = []
    if inputs is not None and (recipe.sampling.prompts or inputs.validation_set is not None):
        averaged = AveragedModel(recipe, parts.engine, parts.ema, parts.device)
        if inputs.validation_set is not None:
            meters.append(validation_loss(parts, inputs, averaged))
        if recipe.sampling.prompts:
            preview = preview_hook(parts, inputs, averaged)
            previews.append(PhaseHook(preview, SAMPLING, phases, preview.is_due))
    log, progress = (parts.log.metrics, parts.log.progress) if parts.log else (None, None)
    metrics = MetricsHook(recipe, ranks, meters, log, progress)
    saves = CheckpointHook(
        parts.directory.checkpoints,
        recipe,
        parts.engine,
        parts.ema,
        ranks,
        parts.bad_steps.settle,
        partial(phases.took, CHECKPOINT),
    )
    every = recipe.runtime.replica_check_every_steps
    replicas = replica_hooks(parts.engine, ranks, every) if every else []
    return [
        *replicas,  # what differs is not to be saved
        parts.bad_steps,
        PhaseHook(metrics, METRICS, phases, metrics.is_due),
        PhaseHook(checkpoint_time.around(saves), CHECKPOINT, phases, saves.is_due),
        *previews,
        RollbackHook(parts, saves, counting=[*replicas, metrics, saves, *previews]),
    ]


def step_meters(parts: RunParts) -> list[Meter]:
    """What the log knows of a step beyond its loss, whatever the batches are."""
    recipe, ranks, device = parts.recipe, parts.ranks, parts.device
    meters: list[Meter] = [
        TimestepLosses(recipe.diffusion.num_train_timesteps, ranks, device),
        WeightNorms(parts.engine.fragments, parts.engine.is_sharded, recipe),
        DeviceUse(recipe, ranks, device, count_flops(recipe.model)["gflops_with_attention"]),
    ]
    if every := recipe.tracking.step_times_every_steps:
        stragglers = Stragglers(recipe.tracking.straggler_ratio, ranks)
        meters.append(StepTimes(parts.phases, every, ranks, device, stragglers))
    return meters


def validation_loss(parts: RunParts, inputs: TrainingInputs, averaged: AveragedModel) -> ValidationLoss:
    assert inputs.validation_set is not None
    encode = inputs.with_prompt_embeds
    return ValidationLoss(
        parts.recipe, inputs.validation_set, parts.objective, encode, averaged, parts.ranks, parts.device
    )


def preview_hook(parts: RunParts, inputs: TrainingInputs, averaged: AveragedModel) -> PreviewHook:
    recipe, encoders = parts.recipe, inputs.encoders
    sampler = Sampler(
        averaged.model,
        encoders.autoencoder,
        encoders.text_encoder.encode_prompts,
        inputs.data.null_prompt_embeds,
        inputs.scaling_factor,
        recipe.model,
        recipe.diffusion,
        recipe.sampling,
        parts.device,
    )
    on_grid = parts.log.grid_written if parts.log else ignore_grid
    return PreviewHook(parts.directory.samples, recipe, sampler, averaged, parts.ranks, on_grid, encoders.notice)


def ignore_grid(path: Path, step: int) -> None:
    """Only rank 0 writes grids."""
