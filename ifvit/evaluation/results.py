"""results.json: what an evaluation writes beside the weights, and how it is found again.

It has `run`, `time`, `checkpoint`, `protocol`, `notice`, `encoders`, `made_on`, `seconds`, and under
`splits.{split}.{generated, reconstructions, real}.{metric}` the metric's values.
"""

import json
from pathlib import Path
from typing import Any

from ifvit.config.errors import UserError
from ifvit.runtime.run_directory import RunDirectory

RESULTS_FILE = "results.json"
FORMAT_VERSION = 1


def read_results(folder: Path) -> dict[str, Any] | None:
    """The finished evaluation in `folder`, or None where there is none. Raises UserError for a file of another kind."""
    file = folder / RESULTS_FILE
    if not file.is_file():
        return None
    try:
        results: dict[str, Any] = json.loads(file.read_bytes())
        version = results["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: is no results of `ifvit evaluate`; remove it and evaluate again") from error
    if version != FORMAT_VERSION:
        raise UserError(f"{file}: has format version {version}, not {FORMAT_VERSION}; remove it and evaluate again")
    return results


def newest_results(run: RunDirectory, step: int | None = None) -> dict[str, Any] | None:
    """The run's evaluation that was finished last, of any checkpoint or that of `step`; None where there is none."""
    found = [read_results(folder) for folder in sorted(run.evaluation.glob("*"))]
    finished = [results for results in found if results and step in (None, results["checkpoint"]["step"])]
    return max(finished, key=lambda results: results["time"], default=None)
