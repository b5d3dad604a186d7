"""results.json: what an evaluation writes beside the weights, and how it is found again.

It has KEYS, and under `splits.{split}.{IMAGE_SETS}.{metric}` the metric's values. `generation` is where the images were
made and how long that took (see generation.py), `measured_on` where the numbers were; `seconds.generation` is None
where that is not known. The recipe that weights and options gave lies beside it, as recipe.yaml.
"""

import json
from pathlib import Path
from typing import Any

from ifvit.config.errors import UserError
from ifvit.runtime.run_directory import RunDirectory

RESULTS_FILE, RECIPE_FILE = "results.json", "recipe.yaml"
FORMAT_VERSION = 2  # 1: counts of trained groups in split unseen
KEYS = (
    *("run", "time", "checkpoint", "protocol", "splits", "notice", "encoders"),
    *("generation", "measured_on", "seconds"),
)
IMAGE_SETS = ("generated", "reconstructions", "real")


class OlderResultsError(UserError):
    """A results.json of an older version, whose numbers mean something else."""


def read_results(folder: Path) -> dict[str, Any] | None:
    """The finished evaluation in `folder`, or None where there is none.

    Raises UserError for a file of another kind, and OlderResultsError for one that has to be measured again.
    """
    file = folder / RESULTS_FILE
    if not file.is_file():
        return None
    try:
        results: dict[str, Any] = json.loads(file.read_bytes())
        version = int(results["format_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: is no results of `ifvit evaluate`; remove it and evaluate again") from error
    if version < FORMAT_VERSION:
        raise OlderResultsError(f"{file}: has format version {version}, not {FORMAT_VERSION}; evaluate again")
    if version > FORMAT_VERSION:
        raise UserError(
            f"{file}: has format version {version}, this version of ifvit knows {FORMAT_VERSION}; update it"
        )
    if missing := missing_keys(results):
        raise UserError(f"{file}: has no {', '.join(missing)}; remove it and evaluate again")
    return results


def missing_keys(results: dict[str, Any]) -> list[str]:
    """Dotted names of what a results.json must have and this one has not."""
    if missing := [key for key in KEYS if key not in results]:
        return missing
    return [
        f"splits.{split}.{name}"
        for split in results["protocol"]["splits"]
        for name in IMAGE_SETS
        if name not in results["splits"].get(split, {})
    ]


def newest_evaluation(run: RunDirectory, step: int | None = None) -> Path | None:
    """The folder of the run's evaluation that was finished last, of any checkpoint or that of `step`, if there is one.

    A model that is shipped with its results has them beside it.
    Raises UserError as `read_results` does.
    """
    found = {folder: read_results(folder) for folder in (run.path, *sorted(run.evaluation.glob("*")))}
    finished = {
        folder: results["time"]
        for folder, results in found.items()
        if results and step in (None, results["checkpoint"]["step"])
    }
    return max(finished, key=finished.__getitem__, default=None)
