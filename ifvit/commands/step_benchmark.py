"""Measure training steps (forward, backward, AdamW) of recipes, in float32 on synthetic batches, in one process.

Recipes take turns, a window of steps each. Printed are the median window of each with its spread, and the median over
the rounds of the ratio to the first recipe. The machine should do nothing else meanwhile.
"""

import argparse
import json
import sys

from ifvit.config.arguments import add_set_argument
from ifvit.config.errors import UserError
from ifvit.config.loading import load_recipe

UNRELIABLE_SPREAD = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipes", metavar="RECIPE", nargs="+", help="recipe files; the first is the one compared with")
    add_set_argument(parser, "give a field of all recipes another value; may be repeated")
    parser.add_argument("--batch-size", type=int, default=4, metavar="N", help="default: 4")
    parser.add_argument("--windows", type=int, default=7, metavar="N", help="measured windows of each; default: 7")
    parser.add_argument("--steps", type=int, default=3, metavar="N", help="steps in a window; default: 3")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> None:
    for name in ("batch_size", "windows", "steps"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')}: is {getattr(arguments, name)}, must be at least 1")
    recipes = [load_recipe(path, arguments.overrides) for path in arguments.recipes]
    backends = {recipe.runtime.attention_backend for recipe in recipes}
    if len(backends) > 1:
        raise UserError(f"runtime.attention_backend: is {', '.join(sorted(backends))}; give one for all with --set")
    import torch

    from ifvit.benchmark.step_time import measure_steps
    from ifvit.model.attention_choice import activate_for_sampling
    from ifvit.runtime.distributed import Ranks, training_device
    from ifvit.runtime.environment import cpu_model, gpu_names
    from ifvit.runtime.progress import Progress

    device = training_device(Ranks())
    backend = activate_for_sampling(recipes[0].runtime.attention_backend, recipes[0].model, device).backend
    with Progress(len(recipes) * (arguments.windows + 1), "measuring", unit="windows") as progress:
        times = measure_steps(
            recipes, arguments.batch_size, arguments.windows, arguments.steps, device, progress.advance
        )
    machine = gpu_names()[0] if device.type == "cuda" else f"{cpu_model()}, {torch.get_num_threads()} threads"
    report = {
        "machine": machine,
        "torch": torch.__version__,
        "attention_backend": backend,
        "batch_size": arguments.batch_size,
        "steps": [
            {
                "recipe": step_time.name,
                "seconds_per_step": step_time.seconds_per_step,
                "spread": step_time.spread,
                "ratio_to_first": step_time.ratio_to(times[0]),
            }
            for step_time in times
        ],
    }
    if max(step_time.spread for step_time in times) > UNRELIABLE_SPREAD:
        print("warning: the windows differ by more than half: the machine was busy, do not use these", file=sys.stderr)
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{machine}, torch {torch.__version__}, attention: {backend}, batch {arguments.batch_size}, fp32")
    for row, step_time in zip(report["steps"], times, strict=True):
        print(
            f"  {step_time.name:32} {step_time.seconds_per_step:8.3f} s/step   spread {step_time.spread:5.1%}   "
            f"x {row['ratio_to_first']:.3f}"
        )
