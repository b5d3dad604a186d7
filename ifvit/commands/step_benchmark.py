"""Measure training steps of recipes on synthetic batches, as `train` makes them: DeepSpeed, AdamW, averages.

Recipes take turns in one process, a window of steps each; precision, ZeRO stage and attention backend are each recipe's
own. Printed are the median window of each with its spread, its parts, and the median over the rounds of the ratio to
the first recipe. The machine should do nothing else meanwhile.
"""

import argparse
import json
from typing import Any

from ifvit.commands.benchmark_options import (
    add_batch_size_argument,
    add_window_arguments,
    batch_size_of,
    warn_of_spread,
)
from ifvit.config.arguments import add_set_argument, require_positive
from ifvit.config.loading import load_recipe
from ifvit.config.schema import Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipes", metavar="RECIPE", nargs="+", help="recipe files; the first is the one compared with")
    add_set_argument(parser, "give a field of all recipes another value; may be repeated")
    add_batch_size_argument(parser)
    add_window_arguments(parser, 7, "steps", 3)


def run(arguments: argparse.Namespace) -> None:
    require_positive(arguments, "batch_size", "windows", "steps")
    recipes = named_recipes([load_recipe(path, arguments.overrides) for path in arguments.recipes])
    report = measure(recipes, arguments)
    warn_of_spread(max(cell["spread"] for cell in report["cells"].values()))
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['machine']}, torch {report['torch']}")
    for name, cell in report["cells"].items():
        print(
            f"  {name:32} {cell['step_seconds']:8.3f} s/step   spread {cell['spread']:5.1%}   "
            f"x {cell['ratio_to_first']:.3f}   {cell['model_tflops_per_second']:.3f} TFLOP/s"
        )
        print(
            f"  {'':32} forward {cell['forward_seconds']:.3f}, backward {cell['backward_seconds']:.3f}, optimiser "
            f"{cell['optimizer_seconds']:.3f}, averages {cell['ema_seconds']:.3f}; batch {cell['batch_size']}, "
            f"{cell['precision']}, ZeRO {cell['zero_stage']}, attention: {cell['attention_backend']}"
        )


def named_recipes(recipes: list[Recipe]) -> dict[str, Recipe]:
    """By name; a recipe given again, to see how far equal ones differ, is "NAME #2"."""
    named: dict[str, Recipe] = {}
    for recipe in recipes:
        count = sum(other.name == recipe.name for other in named.values())
        named[recipe.name if count == 0 else f"{recipe.name} #{count + 1}"] = recipe
    return named


def measure(recipes: dict[str, Recipe], arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from ifvit.benchmark.measured_process import machine_name, one_rank
    from ifvit.benchmark.step_time import cell_reports, measure_steps
    from ifvit.benchmark.synthetic_training import SyntheticTraining, deepspeed_engine, with_batch_size
    from ifvit.runtime.progress import Progress

    with one_rank() as device:
        sized = {
            name: with_batch_size(recipe, batch_size_of(arguments, recipe, device)) for name, recipe in recipes.items()
        }
        trainings = {name: SyntheticTraining(recipe, device, deepspeed_engine) for name, recipe in sized.items()}
        with Progress(len(recipes) * (arguments.windows + 1), "measuring", unit="windows") as progress:
            times = measure_steps(trainings, arguments.windows, arguments.steps, progress.advance)
        return {
            "machine": machine_name(device),
            "torch": torch.__version__,
            "windows": arguments.windows,
            "steps_per_window": arguments.steps,
            "cells": cell_reports(trainings, times),
        }
