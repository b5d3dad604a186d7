"""Write what `ifvit plan` says into the heads of recipes: python -m ifvit.commands.plan_header recipes/scale/*.yaml

A head has a line "# Plan:      ifvit plan RECIPE OPTIONS"; the lines below it that begin with "#            " are
replaced by the plan's main numbers.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ifvit.benchmark.plan import make_plan
from ifvit.benchmark.plan_text import header_lines
from ifvit.commands.plan import add_arguments, request_from
from ifvit.config.errors import UserError

MARK = "# Plan:      ifvit plan "
INDENT = "#            "


def with_plan(path: Path) -> str:
    """The text of the recipe `path` with the numbers of its plan in its head; run in the folder its command names."""
    lines = path.read_text().splitlines()
    places = [number for number, line in enumerate(lines) if line.startswith(MARK)]
    if len(places) != 1:
        raise UserError(f"{path}: must have one line that begins with '{MARK}'")
    start = end = places[0] + 1
    while lines[end].startswith(INDENT):
        end += 1
    lines[start:end] = [INDENT + line for line in planned_lines(lines[start - 1].removeprefix(MARK))]
    return "\n".join(lines) + "\n"


def planned_lines(command: str) -> list[str]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return header_lines(make_plan(request_from(parser.parse_args(shlex.split(command)))))


def main(paths: Sequence[str]) -> None:
    """Rewrite the recipes `paths` where their plan has changed."""
    for path in map(Path, paths):
        text = with_plan(path)
        if text != path.read_text():
            path.write_text(text)
            print(f"{path}: written")


if __name__ == "__main__":
    main(sys.argv[1:])
