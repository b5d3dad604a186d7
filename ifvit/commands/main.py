"""The `ifvit` command: finds the verb, imports only what that verb needs, and turns errors into exit codes.

Exit codes: 0 done, 1 our fault, 2 the user's, 3 the loss became non-finite.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from ifvit.config.errors import UserError

VERBS = {
    "validate": "check a recipe and print it with every default filled in",
    "flops": "parameters and FLOPs of a recipe's model",
    "train": "train a recipe, or go on with the run that has its name",
    "sample": "make images from prompts with a run, an export or imported weights",
    "export": "write a run's averaged weights as a model folder",
    "import-weights": "turn public U-ViT weights into a model folder",
    "bench": "measure training steps",
}


def main(arguments: Sequence[str]) -> int:
    """Run `ifvit ARGUMENTS` and return its exit code."""
    verb = arguments[0] if arguments else ""
    if verb not in VERBS:
        return print_overview(verb)
    module = import_module(f"ifvit.commands.{verb.replace('-', '_')}")
    parser = argparse.ArgumentParser(prog=f"ifvit {verb}", description=module.__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    module.add_arguments(parser)
    try:
        return int(module.run(parser.parse_args(arguments[1:])) or 0)
    except UserError as error:
        for line in error.lines:
            print(f"error: {line}", file=sys.stderr)
        return 2


def print_overview(verb: str) -> int:
    lines = ["usage: ifvit VERB ...   (ifvit VERB --help tells more)", ""]
    lines += [f"  {name:16}{what}" for name, what in VERBS.items()]
    if verb in ("", "-h", "--help"):
        print("\n".join(lines))
        return 0
    if verb == "--version":
        import ifvit

        print(ifvit.__version__)
        return 0
    print(f"error: {verb}: unknown verb, must be one of {', '.join(VERBS)}", file=sys.stderr)
    return 2


def entry_point() -> None:
    """What the console script calls."""
    sys.exit(main(sys.argv[1:]))
