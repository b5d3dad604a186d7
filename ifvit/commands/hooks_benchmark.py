"""Measure what watching a training on synthetic batches costs: metrics, step times, bad steps, heartbeats, checkpoints.

Steps with all hooks and without take turns, a window each; every window logs once. Then checkpoints are saved into the
folder: how long training stands still for one that is written beside it, and for one that it waits for. The machine
should do nothing else meanwhile.
"""

import argparse
import json
from pathlib import Path
from typing import Any, cast

from ifvit.config.arguments import add_recipe_arguments, require_positive
from ifvit.config.loading import load_recipe
from ifvit.config.schema import Recipe

CPU_BATCH_SIZE = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--folder", type=Path, required=True, metavar="DIR", help="a new folder on the runs' disk")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help=f"default: {CPU_BATCH_SIZE}, on a GPU train.micro_batch_size"
    )
    parser.add_argument("--windows", type=int, default=5, metavar="N", help="measured windows of each; default: 5")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="steps in a window; default: 10")
    parser.add_argument("--saves", type=int, default=3, metavar="N", help="checkpoints of each kind; default: 3")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> None:
    require_positive(arguments, "batch_size", "windows", "steps", "saves")
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
        f"{report['hooks_share']:.2%} of a step in hooks, x {report['ratio_of_rounds']:.3f} (median round, spread "
        f"{report['spread_of_rounds']:.3f})"
    )
    for kind in ("asynchronous_stall", "asynchronous_save", "synchronous_save"):
        seconds = ", ".join(f"{each:.3f}" for each in report[f"{kind}_seconds"])
        print(f"  {kind.replace('_', ' ')}: {seconds} s")


def watched_recipe(recipe: Recipe, steps_per_window: int) -> Recipe:
    """Without grids and validation, which need shards; logged once a window, never saved in one."""
    tracking = {"log_every_steps": steps_per_window, "mlflow": False}
    return recipe.model_copy(
        update={
            "sampling": recipe.sampling.model_copy(update={"prompts": ()}),
            "tracking": recipe.tracking.model_copy(update=tracking),
            "checkpoint": recipe.checkpoint.model_copy(update={"every_steps": 10**9}),
        }
    )


def measure(recipe: Recipe, arguments: argparse.Namespace) -> dict[str, Any]:
    from types import SimpleNamespace

    import torch

    from ifvit.benchmark.hook_cost import measure_hooks
    from ifvit.benchmark.measured_process import machine_name, one_rank
    from ifvit.benchmark.save_time import measure_saves
    from ifvit.benchmark.synthetic_training import SyntheticTraining, deepspeed_engine
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
        default_size = recipe.train.micro_batch_size if device.type == "cuda" else CPU_BATCH_SIZE
        training = SyntheticTraining(recipe, arguments.batch_size or default_size, device, deepspeed_engine)
        assert isinstance(training.engine, DeepSpeedEngine)
        training.phases = guards.phases
        guards.use(directory)
        log = MetricsLog(directory.metrics_file, directory.discarded_metrics_file)
        unused = cast(Any, None)  # of grids, validation and rollbacks
        bad_steps = BadStepsHook(recipe.train.bad_steps, ranks, directory.bad_steps_file)
        hooks = make_hooks(
            training.recipe,
            directory,
            unused,
            None,
            unused,
            training.objective,
            training.engine,
            training.ema,
            unused,
            bad_steps,
            guards.phases,
            ranks,
            device,
            cast(Any, SimpleNamespace(log=log, progress=progress)),
        )
        hooks = [guards.stop_hook(recipe.train.max_steps), *hooks]
        watched = measure_hooks(training, hooks, bad_steps.must_skip, arguments.windows, arguments.steps)
        saves = measure_saves(training, arguments.folder / "saves", arguments.saves)
        return {
            "machine": machine_name(device),
            "torch": torch.__version__,
            "recipe": recipe.name,
            "batch_size": training.recipe.train.global_batch_size,
            "logged_every_steps": arguments.steps,
            **watched,
            **saves,
        }
