"""Evaluated runs side by side, of one protocol, and means over seeds."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from ifvit.config.errors import UserError
from ifvit.config.loading import leaves
from ifvit.evaluation.metric import Column
from ifvit.evaluation.protocol import differing_fields
from ifvit.reporting.compared_run import ComparedRun, compared_run, find_evaluation, quality_numbers
from ifvit.reporting.numbers import measured_columns
from ifvit.runtime.run_directory import RunDirectory

DIGEST_LENGTH = 64  # of a sha256


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ only in name and seed, of the same step and average."""

    runs: tuple[ComparedRun, ...]

    @property
    def name(self) -> str:
        """The run's label, or what the names begin with; the cell's name where they begin differently."""
        if len(self.runs) == 1:
            return self.runs[0].label
        letters = zip(*(run.name for run in self.runs), strict=False)
        beginning = "".join(column[0] for column in takewhile(lambda column: len(set(column)) == 1, letters))
        shared = f"{beginning}*" if beginning else self.runs[0].cell
        details = {run.detail for run in self.runs}
        return f"{shared} ({details.pop()})" if len(details) == 1 and details != {""} else shared

    def values(self, key: str) -> list[float]:
        """The number `key` of every run that has it."""
        return [value for run in self.runs if (value := run.numbers.get(key)) is not None]

    def mean_and_deviation(self, key: str) -> tuple[float, float] | None:
        """Mean and standard deviation (n - 1 below) of `key`; None for fewer than two runs that have it."""
        values = self.values(key)
        return (statistics.fmean(values), statistics.stdev(values)) if len(values) > 1 else None

    def record(self) -> dict[str, Any]:
        """For JSON."""
        keys = dict.fromkeys(key for run in self.runs for key in run.numbers)
        statistics_of = {key: self.mean_and_deviation(key) for key in keys}
        return {
            "name": self.name,
            "runs": [run.label for run in self.runs],
            "mean": {key: found and found[0] for key, found in statistics_of.items()},
            "standard_deviation": {key: found and found[1] for key, found in statistics_of.items()},
        }


@dataclass(frozen=True)
class Comparison:
    """Runs in the order they were named in, one of them evaluated at least; all evaluations have one protocol."""

    runs: tuple[ComparedRun, ...]

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The results of the runs that have some."""
        return [run.results for run in self.runs if run.results is not None]

    @property
    def protocol(self) -> dict[str, Any]:
        protocol: dict[str, Any] = self.evaluations[0]["protocol"]
        return protocol

    @property
    def columns(self) -> list[tuple[str, Column]]:
        """(metric's name, column) of the numbers that some evaluation has."""
        return measured_columns(self.evaluations)

    @property
    def groups(self) -> list[SeedGroup]:
        groups: dict[str, list[ComparedRun]] = {}
        for run in self.runs:
            group = groups.setdefault(run.apart_from_seed, [])
            if any(run.has_weights_of(other) for other in group):
                groups[run.label] = [run]  # the same weights evaluated elsewhere are no other seed
            else:
                group.append(run)
        return [SeedGroup(tuple(runs)) for runs in groups.values()]

    def ceiling(self, image_set: str) -> dict[str, float | None]:
        """The numbers of "real" images or "reconstructions", by the keys of `ComparedRun.numbers`.

        They are the same for all runs; each is taken from the first evaluation that has it.
        """
        ceiling: dict[str, float | None] = {}
        for results in self.evaluations:
            for key, value in quality_numbers(results, image_set).items():
                if ceiling.get(key) is None:
                    ceiling[key] = value
        return ceiling

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "protocol": self.protocol,
            "runs": [run.record() for run in self.runs],
            "seeds": [group.record() for group in self.groups if len(group.runs) > 1],
            "reconstructions": self.ceiling("reconstructions"),
            "real": self.ceiling("real"),
        }


def compare_runs(paths: Sequence[str], step: int | None = None) -> Comparison:
    """The runs in `paths`, each by its newest evaluation (of `step`), or by one whose folder is named.

    Raises UserError where a run is not there or an evaluation named twice, where none was evaluated, and for different
    protocols.
    """
    found = [find_evaluation(path, step) for path in paths]
    check_none_twice(paths, found)
    runs = with_details(paths, [compared_run(*each) for each in found])
    evaluated = [run for run in runs if run.results is not None]
    if not evaluated:
        at_step = "" if step is None else f" at step {step}"
        raise UserError(f"{', '.join(paths)}: not evaluated{at_step}; run ifvit evaluate {paths[0]} first")
    for run in evaluated[1:]:
        check_same_protocol(evaluated[0], run)
    return Comparison(tuple(runs))


def check_none_twice(paths: Sequence[str], found: Sequence[tuple[RunDirectory, Path | None]]) -> None:
    named: dict[Path, str] = {}
    for path, (own, folder) in zip(paths, found, strict=True):
        place = folder or own.path.resolve()
        if place in named:
            raise UserError(f"{path}: is named twice" + ("" if path == named[place] else f", also as {named[place]}"))
        named[place] = path


def with_details(paths: Sequence[str], runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """The runs, told apart where names repeat: by their weights, or where that is not enough by the path given."""
    names = Counter(run.name for run in runs)
    detailed = [replace(run, detail=weights_text(run.results)) if names[run.name] > 1 else run for run in runs]
    labels = Counter(run.label for run in detailed)
    return [
        replace(run, detail=path) if labels[run.label] > 1 else run for path, run in zip(paths, detailed, strict=True)
    ]


def weights_text(results: Mapping[str, Any] | None) -> str:
    """ "step 100, EMA 0.9", or "export" for the weights of a model folder."""
    if results is None:
        return "not evaluated"
    checkpoint = results["checkpoint"]
    if checkpoint["step"] is None:
        return "export"
    return f"step {checkpoint['step']}, EMA {checkpoint['ema_decay']:g}"


def short(value: object) -> str:
    """Enough of a digest to tell it from another one."""
    text = str(value)
    return text[:8] if len(text) == DIGEST_LENGTH else text


def check_same_protocol(first: ComparedRun, other: ComparedRun) -> None:
    assert first.results is not None and other.results is not None
    there, here = first.results["protocol"], other.results["protocol"]
    if differing := differing_fields(there, here):
        ours, theirs = dict(leaves(here)), dict(leaves(there))
        fields = "; ".join(f"{name} is {short(ours.get(name))} and not {short(theirs.get(name))}" for name in differing)
        raise UserError(
            f"{other.label}: was evaluated in another way than {first.label}: {fields}; evaluate both alike, or name "
            "the folders of two like evaluations"
        )
