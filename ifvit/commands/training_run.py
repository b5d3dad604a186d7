"""One training run from its recipe: inputs, run directory, model, engine and hooks meet here.

recipe -> inputs -> run directory and attention -> engine, averages and state -> parts -> hooks -> the loop
"""

from contextlib import ExitStack
from pathlib import Path

import torch

from ifvit.checkpoint.load import Checkpoint, newest_checkpoint, read_weights
from ifvit.checkpoint.resume import restore_state, say_other_recipe
from ifvit.commands.rollback import is_rollback_due
from ifvit.commands.run_parts import RunParts
from ifvit.commands.run_report import RunReport
from ifvit.commands.shared_attention import shared_attention_choice
from ifvit.commands.training_hooks import make_hooks
from ifvit.commands.training_inputs import TrainingInputs, open_batches, open_inputs
from ifvit.config.errors import UserError
from ifvit.config.exit_codes import ExitCode
from ifvit.config.schema import Recipe
from ifvit.data.training_data import TrainingData
from ifvit.diffusion.objective import Objective
from ifvit.diffusion.schedule import NoiseSchedule
from ifvit.model import weights as model_folder
from ifvit.model.attention_choice import AttentionChoice
from ifvit.model.uvit import UViT
from ifvit.runtime.agreement import agreed_errors
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.environment import last_attempt
from ifvit.runtime.run_directory import RunDirectory, open_run
from ifvit.runtime.seeding import derived_seed
from ifvit.training.bad_steps_hook import BadStepsHook
from ifvit.training.ema import Ema
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.gathering import copy_from_first_rank
from ifvit.training.guards import Guards
from ifvit.training.loop import train
from ifvit.training.phases import END
from ifvit.training.state import TrainState


def run_training(recipe: Recipe, ranks: Ranks, device: torch.device) -> ExitCode:
    """Start or continue the run of `recipe` on these ranks. The process group must exist."""
    with Guards(recipe.runtime, ranks) as guards:
        inputs = open_inputs(recipe, ranks, device)
        recipe = inputs.recipe
        directory, attention = open_directory(inputs, ranks, device)
        guards.use(directory)
        engine, ema, state = restored_engine(recipe, directory, ranks, device)
        if is_done(recipe, state):
            if ranks.rank == 0:
                print(f"{directory.path}: at step {state.step} of {recipe.train.max_steps}, nothing left to do")
            return ExitCode.DONE
        report = None
        with agreed_errors(ranks):
            if ranks.rank == 0:
                report = RunReport(inputs, directory, state, ranks, device, attention)
        with ExitStack() as stack:
            if report:
                stack.enter_context(report)
            stack.enter_context(guards.telling())  # before MLflow is told, which may take its time
            batches = stack.enter_context(open_batches(inputs, ranks, device, guards.phases, state.next_batch))
            stack.enter_context(guards.telling())  # before the batches are closed, which waits for reads
            parts = RunParts(
                recipe=recipe,
                directory=directory,
                ranks=ranks,
                device=device,
                engine=engine,
                ema=ema,
                objective=training_objective(inputs, device),
                batches=batches,
                bad_steps=BadStepsHook(recipe.train.bad_steps, ranks, directory.bad_steps_file, directory.writer),
                phases=guards.phases,
                log=report.log if report else None,
            )
            train(state, parts.step_parts, [guards.stop_hook(recipe.train.max_steps), *make_hooks(parts, inputs)])
            guards.phases.enter(END, state.step)
        return ExitCode.INTERRUPTED if state.stop_reason else ExitCode.DONE


def open_directory(inputs: TrainingInputs, ranks: Ranks, device: torch.device) -> tuple[RunDirectory, AttentionChoice]:
    """The run's directory, locked by rank 0, and the attention backend that is active from now on. Collective.

    Raises UserError as open_run does, or where the run was trained on other shards.
    """
    recipe = inputs.recipe
    directory = RunDirectory(Path(recipe.runtime.runs_root) / recipe.name)
    attention = shared_attention_choice(recipe, directory, ranks, device)
    with agreed_errors(ranks):  # only now, so that no mistake above leaves a run behind
        if ranks.rank == 0:
            directory, _ = open_run(recipe)  # holds the lock from here on
            check_same_shards(directory, inputs.data)
    return directory, attention


def restored_engine(
    recipe: Recipe, directory: RunDirectory, ranks: Ranks, device: torch.device
) -> tuple[DeepSpeedEngine, Ema, TrainState]:
    """Engine, averages and state of the run's newest checkpoint, or of its start. Collective."""
    checkpoint = newest_checkpoint(directory.checkpoints, ranks)
    with agreed_errors(ranks):
        if ranks.rank == 0:  # on all it would take a large model's size of the node's memory for each of its GPUs
            model = initial_model(recipe, checkpoint).to(device)
        else:
            model = model_folder.empty_model(recipe.model, device)
    copy_from_first_rank(model)
    engine = DeepSpeedEngine(model, recipe.train, recipe.optimizer, recipe.runtime, ranks.world_size)
    ema = Ema(engine.fragments, recipe.ema.decays)
    state = TrainState()
    if checkpoint is not None:
        restore_state(checkpoint, state, engine, ema)
        say_other_recipe(checkpoint, recipe, ranks)
        checkpoint.close()
    return engine, ema, state


def training_objective(inputs: TrainingInputs, device: torch.device) -> Objective:
    recipe = inputs.recipe
    return Objective(
        NoiseSchedule(recipe.diffusion, device),
        inputs.scaling_factor,
        inputs.data.null_prompt_embeds.to(device),
        seed=recipe.seed,
        global_batch_size=recipe.train.global_batch_size,
    )


def is_done(recipe: Recipe, state: TrainState) -> bool:
    """Whether the last step is made, and nothing demands that it be taken back."""
    return state.step >= recipe.train.max_steps and not is_rollback_due(recipe.train.bad_steps, state)


def check_same_shards(directory: RunDirectory, data: TrainingData) -> None:
    """Raises UserError where the run was trained on shards of other content or order: it would not be the same run."""
    attempt = last_attempt(directory.environment_file)
    if attempt is not None and attempt["shards_sha256"] != data.digest:
        raise UserError(
            f"{data.places}: other samples than those that run {directory.path} was trained on, or in another order "
            "(shards at an address come in lanes, those in a folder do not); restore those, or start under another "
            "name (--set name=...)"
        )


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
