"""Look at the data that a recipe trains on."""

import argparse
import importlib

VIEWS = {"audit": ("data_audit", "prove the order of the samples: each once an epoch, well mixed, on any ranks")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    choices = parser.add_subparsers(dest="view", metavar="WHAT", required=True)
    for name, (module_name, text) in VIEWS.items():
        module = importlib.import_module(f"ifvit.commands.{module_name}")
        chosen = choices.add_parser(
            name, help=text, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(chosen)
        chosen.set_defaults(run_view=module.run)


def run(arguments: argparse.Namespace) -> int:
    code: int = arguments.run_view(arguments)
    return code
