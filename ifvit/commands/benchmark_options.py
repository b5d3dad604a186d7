"""The options that benchmarks share, and what is said where the machine was busy."""

import argparse
import sys
from typing import TYPE_CHECKING

from ifvit.config.schema import Recipe

if TYPE_CHECKING:
    import torch

CPU_BATCH_SIZE = 4
UNRELIABLE_SPREAD = 0.5


def add_window_arguments(parser: argparse.ArgumentParser, windows: int, work: str, per_window: int) -> None:
    """--windows, --WORK (what a window is made of: steps or batches), with these defaults, and --json."""
    parser.add_argument(
        "--windows", type=int, default=windows, metavar="N", help=f"measured windows of each; default: {windows}"
    )
    parser.add_argument(
        f"--{work}", type=int, default=per_window, metavar="N", help=f"{work} in a window; default: {per_window}"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_batch_size_argument(parser: argparse.ArgumentParser) -> None:
    """--batch-size, of training steps."""
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help=f"default: {CPU_BATCH_SIZE}, on a GPU the recipe's train.micro_batch_size",
    )


def batch_size_of(arguments: argparse.Namespace, recipe: Recipe, device: "torch.device") -> int:
    """What --batch-size says, or its default on `device`."""
    size: int | None = arguments.batch_size
    return size or (recipe.train.micro_batch_size if device.type == "cuda" else CPU_BATCH_SIZE)


def warn_of_spread(spread: float) -> None:
    """`spread`: (slowest - fastest window) / median."""
    if spread > UNRELIABLE_SPREAD:
        print("warning: the windows differ by more than half: the machine was busy, do not use these", file=sys.stderr)
