"""Measure training steps of recipes on synthetic batches, as `train` makes them: DeepSpeed, AdamW, averages.

Recipes take turns in one process, a window of steps each; precision, ZeRO stage and attention backend are each recipe's
own. Printed are the median window of each with its spread, its parts, and the median over the rounds of the ratio to
the first recipe. The machine should do nothing else meanwhile.
"""

import argparse
import json
import sys
from typing import Any

from ifvit.config.arguments import add_set_argument, require_positive
from ifvit.config.loading import load_recipe
from ifvit.config.schema import Recipe

UNRELIABLE_SPREAD = 0.5
CPU_BATCH_SIZE = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipes", metavar="RECIPE", nargs="+", help="recipe files; the first is the one compared with")
    add_set_argument(parser, "give a field of all recipes another value; may be repeated")
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help=f"default: {CPU_BATCH_SIZE}, on a GPU each recipe's train.micro_batch_size",
    )
    parser.add_argument("--windows", type=int, default=7, metavar="N", help="measured windows of each; default: 7")
    parser.add_argument("--steps", type=int, default=3, metavar="N", help="steps in a window; default: 3")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> None:
    require_positive(arguments, "batch_size", "windows", "steps")
    recipes = named_recipes([load_recipe(path, arguments.overrides) for path in arguments.recipes])
    report = measure(recipes, arguments)
    if max(cell["spread"] for cell in report["cells"].values()) > UNRELIABLE_SPREAD:
        print("warning: the windows differ by more than half: the machine was busy, do not use these", file=sys.stderr)
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
    from ifvit.benchmark.synthetic_training import SyntheticTraining, deepspeed_engine
    from ifvit.runtime.progress import Progress

    with one_rank() as device:
        trainings = {
            name: SyntheticTraining(
                recipe,
                arguments.batch_size or (recipe.train.micro_batch_size if device.type == "cuda" else CPU_BATCH_SIZE),
                device,
                deepspeed_engine,
            )
            for name, recipe in recipes.items()
        }
        with Progress(len(recipes) * (arguments.windows + 1), "measuring", unit="windows") as progress:
            times = measure_steps(trainings, arguments.windows, arguments.steps, progress.advance)
        return {
            "machine": machine_name(device),
            "torch": torch.__version__,
            "windows": arguments.windows,
            "steps_per_window": arguments.steps,
            "cells": cell_reports(trainings, times),
        }
