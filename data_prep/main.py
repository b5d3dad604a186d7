"""The command line of data_prep: finds the job, reads its arguments, prints a user's mistakes as lines.

A job is a module with `add_arguments(parser)` and `run(args)`; its docstring is its help. Only the job that is asked
for is imported.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from ifvit.config.errors import UserError

JOBS = {
    "shards": "encode a COCO folder into shards of latents and text, as a recipe says",
    "pictures": "draw simple pictures with captions, in COCO's layout, to try the machinery on",
}


def main(argv: Sequence[str]) -> int:
    """Run the job that `argv` names. Returns the exit code: 0 done, 2 a mistake of the user's."""
    listing = "\n".join(f"  {job:10}{text}" for job, text in JOBS.items())
    parser = argparse.ArgumentParser(
        prog="python -m data_prep",
        usage="python -m data_prep JOB ...",
        description=f"jobs:\n{listing}\n\n`python -m data_prep JOB --help` explains one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("job", choices=JOBS, metavar="JOB", help=argparse.SUPPRESS)
    job = parser.parse_args(argv[:1]).job
    module = importlib.import_module(f"data_prep.{job}")
    parser = argparse.ArgumentParser(
        prog=f"python -m data_prep {job}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    try:
        module.run(parser.parse_args(argv[1:]))
    except UserError as error:
        for line in error.lines:
            print(f"error: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what is finished stays, the same command goes on from there", file=sys.stderr)
        return 130
    return 0
