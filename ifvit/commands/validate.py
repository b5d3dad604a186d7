"""Check a recipe: field names, types, ranges and how they fit together. Reads no data and needs no GPU."""

import argparse

from ifvit.config.arguments import add_recipe_arguments, recipe_from
from ifvit.config.loading import resolved_yaml


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the resolved recipe as JSON instead of YAML")


def run(arguments: argparse.Namespace) -> None:
    recipe = recipe_from(arguments)
    print(recipe.model_dump_json(indent=2) if arguments.json else resolved_yaml(recipe), end="\n" * arguments.json)
