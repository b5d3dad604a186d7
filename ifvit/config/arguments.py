"""The arguments of every command that takes a RECIPE."""

import argparse

from ifvit.config.errors import UserError
from ifvit.config.loading import load_recipe
from ifvit.config.schema import Recipe


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """RECIPE and --set."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe file, such as recipes/coco_mini.yaml")
    add_set_argument(parser, "give a field another value, written as in YAML; may be repeated")


def add_set_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """--set, collected as `overrides`; `what` is its help."""
    parser.add_argument("--set", dest="overrides", metavar="a.b=c", action="append", default=[], help=what)


def recipe_from(arguments: argparse.Namespace, unused: tuple[str, ...] = ()) -> Recipe:
    """The validated recipe; `unused` as of `load_recipe`. Raises UserError."""
    return load_recipe(arguments.recipe, arguments.overrides, unused)


def require_positive(arguments: argparse.Namespace, *names: str) -> None:
    """Raises UserError unless the options `names`, whole numbers, are at least 1 where they are given."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')}: is {value}, must be at least 1")
