"""One training run from its recipe: shards, encoders, model, engine and hooks meet here."""

from contextlib import ExitStack
from pathlib import Path

import torch

from ifvit.checkpoint.load import Checkpoint, newest_checkpoint, read_weights
from ifvit.checkpoint.resume import restore_state, say_other_recipe
from ifvit.commands.run_report import RunReport
from ifvit.commands.shared_attention import shared_attention_choice
from ifvit.commands.training_hooks import make_hooks
from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.data.batch import Batch
from ifvit.data.batch_stream import BatchStream
from ifvit.data.loader import BatchLoader
from ifvit.data.online_text import with_prompt_embeds
from ifvit.data.training_data import TrainingData, open_training_data, without_secrets
from ifvit.data.validation_set import open_validation_set
from ifvit.diffusion.objective import Objective
from ifvit.diffusion.schedule import NoiseSchedule
from ifvit.encoders.loading import load_encoders
from ifvit.model import weights as model_folder
from ifvit.model.uvit import UViT
from ifvit.runtime.agreement import agreed_errors, gathered, patient_group
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.environment import last_attempt
from ifvit.runtime.run_directory import RunDirectory, open_run
from ifvit.runtime.seeding import derived_seed
from ifvit.training.bad_steps_hook import BadStepsHook
from ifvit.training.ema import Ema
from ifvit.training.engine import DeepSpeedEngine, num_micro_batches
from ifvit.training.guards import Guards
from ifvit.training.loop import train
from ifvit.training.phases import END, FETCHING
from ifvit.training.state import TrainState

INTERRUPTED_EXIT_CODE = 75  # saved; the same command goes on


def run_training(recipe: Recipe, ranks: Ranks, device: torch.device) -> int:
    """Start or continue the run of `recipe` on these ranks; the exit code. The process group must exist."""
    with Guards(recipe.runtime, ranks) as guards:
        return run_guarded(recipe, ranks, device, guards)


def run_guarded(recipe: Recipe, ranks: Ranks, device: torch.device, guards: Guards) -> int:
    with agreed_errors(ranks):
        num_micro_batches(recipe.train, ranks.world_size)
        data = open_training_data(recipe.data)
        validation_set = open_validation_set(recipe.data, recipe.tracking.validation_num_samples)
        recipe = without_secrets(recipe)
        encoders = load_encoders(recipe, device)
        data.check(recipe, encoders.autoencoder.identity, encoders.text_encoder.identity)
        if validation_set is not None:
            validation_set.check(recipe, encoders.autoencoder.identity, encoders.text_encoder.identity)
        check_initial_weights(recipe)
        scaling_factor = data.scaling_factor(recipe.encoders.scaling_factor)
        recipe = with_scaling_factor(recipe, scaling_factor)
    check_same_on_all_ranks(data.digest, data.places, ranks)
    if validation_set is not None:
        check_same_on_all_ranks(validation_set.shard_set.digest, validation_set.shard_set.place, ranks)
    num_local_ranks = max(gathered(ranks, ranks.local_rank)) + 1
    with agreed_errors(ranks):
        data.check_cache(recipe.train.global_batch_size, ranks.world_size, num_local_ranks)
    directory = RunDirectory(Path(recipe.runtime.runs_root) / recipe.name)
    attention = shared_attention_choice(recipe, directory, ranks, device)
    with agreed_errors(ranks):  # only now, so that no mistake above leaves a run behind
        if ranks.rank == 0:
            directory, _ = open_run(recipe)  # holds the lock from here on
            check_same_shards(directory, data)
    guards.use(directory)
    checkpoint = newest_checkpoint(directory.checkpoints, ranks)
    with agreed_errors(ranks):
        model = initial_model(recipe, checkpoint).to(device)
    engine = DeepSpeedEngine(model, recipe.train, recipe.optimizer, recipe.runtime, ranks.world_size)
    ema = Ema(engine.fragments, recipe.ema.decays)
    state = TrainState()
    if checkpoint is not None:
        restore_state(checkpoint, state, engine, ema)
        say_other_recipe(checkpoint, recipe, ranks)
        checkpoint.close()
    if state.step >= recipe.train.max_steps:
        if ranks.rank == 0:
            print(f"{directory.path}: at step {state.step} of {recipe.train.max_steps}, nothing left to do")
        return 0
    with agreed_errors(ranks):
        is_first = ranks.rank == 0
        report = RunReport(recipe, directory, data, encoders, state, ranks, device, attention) if is_first else None

    def open_loader(first_batch: int) -> BatchLoader:
        loader = BatchLoader(
            data,
            recipe.seed,
            recipe.train.global_batch_size,
            recipe.train.caption_dropout_prob,
            ranks.rank,
            ranks.world_size,
            num_local_ranks,
            first_step=first_batch,
            pin_memory=device.type == "cuda",
        )
        with ExitStack() as on_error:
            on_error.enter_context(loader)
            if data.are_fetched:
                position = guards.phases.position
                with agreed_errors(ranks, patient_group()):
                    guards.phases.enter(FETCHING, position.step)
                    loader.wait_for_first()
                guards.phases.enter(position.phase, position.step)
            on_error.pop_all()
        return loader

    def prepare(batch: Batch) -> Batch:
        return with_prompt_embeds(batch.to(device), encoders.text_encoder)

    with ExitStack() as stack:
        if report:
            stack.enter_context(report)
        batches = stack.enter_context(BatchStream(open_loader, prepare, state.next_batch))
        objective = Objective(
            NoiseSchedule(recipe.diffusion, device),
            scaling_factor,
            data.null_prompt_embeds.to(device),
            seed=recipe.seed,
            global_batch_size=recipe.train.global_batch_size,
        )
        bad_steps = BadStepsHook(recipe.train.bad_steps, ranks, directory.bad_steps_file, directory.writer)
        hooks = make_hooks(
            recipe,
            directory,
            data,
            validation_set,
            encoders,
            objective,
            engine,
            ema,
            batches,
            bad_steps,
            guards.phases,
            ranks,
            device,
            report,
        )
        hooks = [guards.stop_hook(recipe.train.max_steps), *hooks]
        train(
            state,
            engine,
            objective,
            batches,
            ema,
            hooks,
            recipe.train,
            recipe.optimizer,
            guards.phases,
            bad_steps.must_skip,
        )
        guards.phases.enter(END, state.step)
    return 0 if state.step >= recipe.train.max_steps else INTERRUPTED_EXIT_CODE


def check_initial_weights(recipe: Recipe) -> None:
    """Raises UserError unless the folder in `train.init_from`, if any, has a model of the recipe's fields."""
    if recipe.train.init_from is not None:
        folder = Path(recipe.train.init_from)
        there = model_folder.read_model_config(folder).model_dump(mode="json")
        model_folder.check_same_model(there, recipe.model, f"train.init_from: {folder}")


def check_same_on_all_ranks(digest: str, places: str, ranks: Ranks) -> None:
    """Raises UserError where a rank has opened shards of other content, such as an old copy on its machine's disk."""
    digests = gathered(ranks, digest)
    with agreed_errors(ranks):
        if others := [rank for rank, digest in enumerate(digests) if digest != digests[0]]:
            raise UserError(
                f"{places}: has other shards on rank {others[0]} than on rank 0 ({len(others)} of "
                f"{ranks.world_size} ranks differ); give all machines the same"
            )


def check_same_shards(directory: RunDirectory, data: TrainingData) -> None:
    """Raises UserError where the run was trained on shards of other content or order: it would not be the same run."""
    attempt = last_attempt(directory.environment_file)
    if attempt is not None and attempt["shards_sha256"] != data.digest:
        raise UserError(
            f"{data.places}: other samples than those that run {directory.path} was trained on, or in another order "
            "(shards at an address come in lanes, those in a folder do not); restore those, or start under another "
            "name (--set name=...)"
        )


def with_scaling_factor(recipe: Recipe, scaling_factor: float) -> Recipe:
    """The recipe with the shards' scaling factor where it leaves it to them, so that the run's recipe says it."""
    encoders = recipe.encoders.model_copy(update={"scaling_factor": scaling_factor})
    return recipe.model_copy(update={"encoders": encoders})


def initial_model(recipe: Recipe, checkpoint: Checkpoint | None) -> UViT:
    """The model that training starts from: the checkpoint's weights, those of `train.init_from`, or seeded random."""
    torch.manual_seed(derived_seed(recipe.seed, "initial weights"))
    model = UViT(recipe.model)
    if checkpoint is not None:
        model_folder.check_same_model(checkpoint.manifest.model, recipe.model, str(checkpoint.folder))
        model_folder.load_weights(model, read_weights(checkpoint), str(checkpoint.folder))
    elif recipe.train.init_from is not None:
        folder = Path(recipe.train.init_from)
        model_folder.load_weights(model, model_folder.read_weights(folder), f"train.init_from: {folder}")
    return model
