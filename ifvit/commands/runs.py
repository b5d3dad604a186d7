"""A table of the runs in a folder: what they do, how far they are, how well and how fast.

States: running (a process holds the run), finished, interrupted (saved; the same command goes on), failed (with the
error below the table), stale (no process holds it, and the last one did not say how it ended: it was killed, or its
machine died; the same command goes on from the newest checkpoint), unreadable (a file of it is damaged; below the table
is which).
loss: mean of the last ten logged. left: at the speed of the last ten. updated: the last sign of life.
"""

import argparse
import dataclasses
import json
import math
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ifvit.reporting.run_overview import RunOverview

WIDTH_OF_A_FILE = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs_root",
        nargs="?",
        type=Path,
        default=Path("runs"),
        metavar="RUNS_ROOT",
        help="the folder that has the runs, or one run's own (default: runs)",
    )
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON, one record for each run")


def run(arguments: argparse.Namespace) -> None:
    from ifvit.reporting.run_overview import read_overviews
    from ifvit.reporting.runs_table import runs_table

    overviews = read_overviews(arguments.runs_root)
    if arguments.json:
        print(json.dumps([record_of(overview) for overview in overviews], indent=2, ensure_ascii=False))
    elif overviews:
        width = shutil.get_terminal_size((WIDTH_OF_A_FILE, 0)).columns
        print(runs_table(overviews, width, time.time()))
    else:
        print(f"{arguments.runs_root}: no runs yet", file=sys.stderr)


def record_of(overview: "RunOverview") -> dict[str, Any]:
    """With null for what is no number: JSON has no NaN."""
    values = dataclasses.asdict(overview)
    return {key: None if value != value or value == math.inf else value for key, value in values.items()}
