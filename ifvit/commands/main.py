"""The `ifvit` command.

Exit codes: ifvit/config/exit_codes.py.
"""

import sys
from collections.abc import Sequence

from ifvit.config.verbs import run_verb

VERBS = {
    "validate": "check a recipe and print it with every default filled in",
    "flops": "parameters and FLOPs of a recipe's model",
    "plan": "memory, time and disk that a recipe needs on so many GPUs; needs none itself",
    "train": "train a recipe, or go on with the run that has its name",
    "sample": "make images from prompts with a run, an export or imported weights",
    "evaluate": "measure a run on captions of images it was not trained on: distance, CLIP score, counts",
    "runs": "a table of runs: state, step, loss, speed, time left",
    "compare": "one table and one figure of evaluated runs",
    "export": "write a run's averaged weights as a model folder",
    "import-weights": "turn public U-ViT weights into a model folder",
    "bench": "measure training steps, or reading batches",
    "data": "audit the order in which a recipe's samples are read",
}


def main(argv: Sequence[str]) -> int:
    """Run `ifvit ARGV` and return its exit code."""
    return run_verb("ifvit", "ifvit.commands", VERBS, argv)


def entry_point() -> None:
    """What the console script calls."""
    sys.exit(main(sys.argv[1:]))
