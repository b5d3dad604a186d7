"""Measure training steps, or reading batches, on an otherwise idle machine."""

import argparse
import importlib

BENCHMARKS = {
    "step": ("step_benchmark", "a training step of one or more recipes"),
    "engine": ("engine_benchmark", "what DeepSpeed on one process costs over a plain PyTorch loop"),
    "hooks": ("hooks_benchmark", "what metrics, heartbeats and checkpoints cost a training"),
    "loader": ("loader_benchmark", "reading a recipe's shards as training does, and with plain webdataset"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    choices = parser.add_subparsers(dest="benchmark", metavar="WHAT", required=True)
    for name, (module_name, text) in BENCHMARKS.items():
        module = importlib.import_module(f"ifvit.commands.{module_name}")
        chosen = choices.add_parser(name, help=text, description=module.__doc__)
        module.add_arguments(chosen)
        chosen.set_defaults(run_benchmark=module.run)


def run(arguments: argparse.Namespace) -> None:
    arguments.run_benchmark(arguments)
