"""Measure what watching a training on synthetic batches costs: metrics, step times, bad steps, stops, checkpoints.

Steps with all hooks and without take turns, a window each. Every watched window logs once and measures one step in its
parts, far more often than a recipe has it. Printed are the share of a step that this process spent in hooks, which is
exact, and by how much watched windows were longer than those beside them, which also has what hooks leave to threads
and to a GPU's queue, and the noise of the machine: the median, and its standard error. Heartbeats go on in both.

Then checkpoints are saved into the folder: how long training stands still for one that is written beside it, and for
one that it waits for. The machine should do nothing else meanwhile.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from ifvit.commands.benchmark_options import add_batch_size_argument, add_window_arguments, batch_size_of
from ifvit.config.arguments import add_recipe_arguments, require_positive
from ifvit.config.errors import UserError
from ifvit.config.loading import load_recipe
from ifvit.config.schema import Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--folder", type=Path, required=True, metavar="DIR", help="a new folder on the runs' disk")
    add_batch_size_argument(parser)
    add_window_arguments(parser, 15, "steps", 4)
    parser.add_argument("--saves", type=int, default=3, metavar="N", help="checkpoints of each kind; default: 3")


def run(arguments: argparse.Namespace) -> None:
    require_positive(arguments, "batch_size", "windows", "steps", "saves")
    if arguments.windows < 2:
        raise UserError("--windows: is 1, must be at least 2: how far they differ is the error")
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    from ifvit.runtime.files import refuse_used_folder

    refuse_used_folder(arguments.folder, "--folder")
    report = measure(watched_recipe(recipe, arguments.steps), arguments)
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['machine']}, torch {report['torch']}: {report['recipe']}, batch {report['batch_size']}")
    print(
        f"  {report['watched_step_seconds']:.3f} s/step with hooks, {report['bare_step_seconds']:.3f} without: "
        f"{report['hooks_share']:.2%} of a step in hooks; longer by {report['overhead']:+.2%} (standard error "
        f"{report['overhead_standard_error']:.2%})"
    )
    for kind in ("asynchronous_stall", "asynchronous_save", "synchronous_save"):
        seconds = ", ".join(f"{each:.3f}" for each in report[f"{kind}_seconds"])
        print(f"  {kind.replace('_', ' ')}: {seconds} s")


def watched_recipe(recipe: Recipe, steps_per_window: int) -> Recipe:
    """Without grids and validation, which need shards; logged and timed once a window, never saved in one."""
    every = {"log_every_steps": steps_per_window, "step_times_every_steps": steps_per_window}
    return recipe.model_copy(
        update={
            "sampling": recipe.sampling.model_copy(update={"prompts": ()}),
            "tracking": recipe.tracking.model_copy(update={**every, "mlflow": False}),
            "checkpoint": recipe.checkpoint.model_copy(update={"every_steps": 10**9}),
            "runtime": recipe.runtime.model_copy(update={"max_hours": None}),
        }
    )


def measure(recipe: Recipe, arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from ifvit.benchmark.hook_cost import measure_hooks
    from ifvit.benchmark.measured_process import machine_name, one_rank
    from ifvit.benchmark.save_time import measure_saves
    from ifvit.benchmark.synthetic_training import SyntheticTraining, deepspeed_engine, with_batch_size
    from ifvit.commands.run_log import RunLog
    from ifvit.commands.run_parts import RunParts
    from ifvit.commands.training_hooks import make_hooks
    from ifvit.runtime.distributed import Ranks
    from ifvit.runtime.metrics import MetricsLog
    from ifvit.runtime.progress import Progress
    from ifvit.runtime.run_directory import RunDirectory
    from ifvit.training.bad_steps_hook import BadStepsHook
    from ifvit.training.engine import DeepSpeedEngine
    from ifvit.training.guards import Guards

    directory, ranks = RunDirectory(arguments.folder), Ranks()
    directory.bad_steps_file.parent.mkdir(parents=True)
    with (
        one_rank() as device,
        Guards(recipe.runtime, ranks) as guards,
        Progress(arguments.steps * (arguments.windows + 1), "measuring", unit="watched steps") as progress,
    ):
        recipe = with_batch_size(recipe, batch_size_of(arguments, recipe, device))
        training = SyntheticTraining(recipe, device, deepspeed_engine)
        assert isinstance(training.engine, DeepSpeedEngine)
        training.phases = guards.phases
        guards.use(directory)
        log = MetricsLog(directory.metrics_file, directory.discarded_metrics_file, directory.writer)
        parts = RunParts(
            recipe=recipe,
            directory=directory,
            ranks=ranks,
            device=device,
            engine=training.engine,
            ema=training.ema,
            objective=training.objective,
            batches=training.batches,
            bad_steps=BadStepsHook(recipe.train.bad_steps, ranks, directory.bad_steps_file, directory.writer),
            phases=guards.phases,
            log=RunLog(log, progress),
        )
        hooks = [guards.stop_hook(recipe.train.max_steps), *make_hooks(parts, inputs=None)]
        watched = measure_hooks(training, hooks, parts.bad_steps.must_skip, arguments.windows, arguments.steps)
        saves = measure_saves(training, arguments.folder / "saves", arguments.saves)
        return {
            "machine": machine_name(device),
            "torch": torch.__version__,
            "recipe": recipe.name,
            "batch_size": training.recipe.train.global_batch_size,
            "windows": arguments.windows,
            "steps_per_window": arguments.steps,
            **watched,
            **saves,
        }
