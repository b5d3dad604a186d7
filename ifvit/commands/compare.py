"""Compare evaluated runs: one table and one figure of what each costs and how good it is.

Reads what `ifvit train` and `ifvit evaluate` wrote into the runs, computes nothing anew, and refuses numbers of
different protocols. A run without an evaluation stands in the table as "not run". Runs that differ only in name and
seed are also summarised: mean and standard deviation. Several evaluations of one run, and its export, stand side by
side. Writes table.md, comparison.json and comparison.png.
"""

import argparse
import json
import sys
from pathlib import Path

from ifvit.config.errors import UserError

TABLE_FILE, JSON_FILE, FIGURE_FILE = "table.md", "comparison.json", "comparison.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="runs/NAME or a model folder for its newest evaluation, or the folder of an evaluation",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("comparison"), help="default: comparison")
    parser.add_argument("--step", type=int, help="evaluations of this checkpoint (default: of any)")
    parser.add_argument("--json", action="store_true", help=f"print {JSON_FILE}")


def run(arguments: argparse.Namespace) -> None:
    from ifvit.reporting.comparison import compare_runs
    from ifvit.reporting.figure import figure_png
    from ifvit.reporting.table import comparison_text, markdown
    from ifvit.runtime.files import write_atomically

    comparison = compare_runs(arguments.runs, arguments.step)
    record = json.dumps(comparison.record(), indent=2)
    out = arguments.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / TABLE_FILE, markdown(comparison).encode())
        write_atomically(out / JSON_FILE, (record + "\n").encode())
        write_atomically(out / FIGURE_FILE, figure_png(comparison))
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}); give another folder") from error
    print(record if arguments.json else comparison_text(comparison))
    written = ", ".join(str(out / name) for name in (TABLE_FILE, JSON_FILE, FIGURE_FILE))
    print(written, file=sys.stderr if arguments.json else sys.stdout)
