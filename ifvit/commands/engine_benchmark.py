"""Measure what DeepSpeed on one process costs over a plain PyTorch loop: the same steps in float32, in turns.

The plain loop runs twice, as a control: how far apart equal loops are on this machine. Printed are the ratios of the
fastest windows, with medians and spreads. The machine should do nothing else meanwhile.
"""

import argparse
import json
import re
from typing import Any

from ifvit.commands.benchmark_options import add_window_arguments
from ifvit.config.arguments import add_recipe_arguments, require_positive
from ifvit.config.errors import UserError
from ifvit.config.loading import load_recipe

CASES = "0:2,1:8"
# What DeepSpeed's engine does and the plain loop does not, as a recipe has it off.
OFF = {
    "train.max_grad_norm": None,
    "train.activation_checkpointing": 0.0,
    "runtime.offload_optimizer": False,
    "runtime.compile": False,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument(
        "--cases", default=CASES, metavar="STAGE:BATCH,...", help=f"ZeRO stages and batch sizes; default: {CASES}"
    )
    add_window_arguments(parser, 9, "steps", 2)


def run(arguments: argparse.Namespace) -> None:
    require_positive(arguments, "windows", "steps")
    if not re.fullmatch(r"[0-3]:[1-9][0-9]*(,[0-3]:[1-9][0-9]*)*", arguments.cases):
        raise UserError(f"--cases: {arguments.cases} is not STAGE:BATCH, or several with commas, such as {CASES}")
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    for field, off in OFF.items():
        section, name = field.split(".")
        if getattr(getattr(recipe, section), name) != off:
            raise UserError(f"{field}: the plain loop does not do that; compare with --set {field}={json.dumps(off)}")
    import torch

    from ifvit.benchmark.engine_overhead import Case, measure_overhead
    from ifvit.benchmark.measured_process import machine_name, one_rank
    from ifvit.runtime.progress import Progress

    cases = [Case(*map(int, case.split(":"))) for case in arguments.cases.split(",")]
    with (
        one_rank() as device,
        Progress(3 * len(cases) * (arguments.windows + 1), "measuring", unit="windows") as progress,
    ):
        report = {
            "machine": machine_name(device),
            "torch": torch.__version__,
            "recipe": recipe.name,
            "cases": [
                measure_overhead(recipe, case, arguments.windows, arguments.steps, device, progress.advance)
                for case in cases
            ],
        }
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report)


def print_report(report: dict[str, Any]) -> None:
    print(f"{report['machine']}, torch {report['torch']}: {report['recipe']} in fp32, one process")
    for case in report["cases"]:
        print(
            f"ZeRO {case['zero_stage']}, batch {case['batch_size']}: DeepSpeed / plain x {case['ratio_of_bests']:.3f} "
            f"(fastest windows; control {case['control_ratio']:.3f}), x {case['ratio_of_rounds']:.3f} (median round)"
        )
        for name, loop in case["loops"].items():
            print(
                f"  {name:12} fastest {loop['best_step_seconds']:.3f}, median {loop['step_seconds']:.3f} s/step, "
                f"spread {loop['spread']:5.1%}: forward {loop['forward_seconds']:.3f}, backward "
                f"{loop['backward_seconds']:.3f}, optimiser {loop['optimizer_seconds']:.3f}, averages "
                f"{loop['ema_seconds']:.3f}"
            )
