"""Evaluated runs side by side: what each one is, what it cost and how good it is, and means over seeds."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from ifvit.config.errors import UserError
from ifvit.config.loading import leaves
from ifvit.config.schema import Recipe
from ifvit.evaluation.protocol import differing_fields
from ifvit.evaluation.results import RESULTS_FILE, newest_results, read_results
from ifvit.model.flops import count_flops
from ifvit.reporting.numbers import measured_columns, number, number_key
from ifvit.reporting.training_cost import training_cost, training_hardware
from ifvit.runtime.run_directory import CHANGEABLE, RunDirectory, find_run

COST_NUMBERS = ("steps_per_second", "training_seconds", "loss")


@dataclass(frozen=True)
class ComparedRun:
    """One run. `numbers` has COST_NUMBERS and, where it was evaluated, "{split}.{metric}.{key}" of its images."""

    name: str
    recipe: Recipe
    results: dict[str, Any] | None
    hardware: str
    counted: dict[str, int | float]  # parameters, gflops, gflops_with_attention
    numbers: dict[str, float | None]

    @property
    def step(self) -> int | None:
        """Of the evaluated checkpoint."""
        return None if self.results is None else self.results["checkpoint"]["step"]

    @property
    def cell(self) -> str:
        """ "cross_attention, intermediate"."""
        return f"{self.recipe.model.conditioning}, {self.recipe.model.fusion.schedule}"

    @property
    def apart_from_seed(self) -> str:
        """Equal for two runs that differ only in name, seed and where things lie."""
        fields = [
            (dotted, value)
            for dotted, value in leaves(self.recipe.model_dump(mode="json"))
            if dotted not in ("name", "seed") and not dotted.startswith(CHANGEABLE)
        ]
        return repr((fields, self.step))

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": self.name,
            "conditioning": self.recipe.model.conditioning,
            "fusion": self.recipe.model.fusion.model_dump(mode="json"),
            **self.counted,
            "global_batch_size": self.recipe.train.global_batch_size,
            "seed": self.recipe.seed,
            "hardware": self.hardware,
            "checkpoint": None if self.results is None else self.results["checkpoint"],
            "numbers": self.numbers,
        }


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ only in name and seed, at the same step."""

    runs: tuple[ComparedRun, ...]

    @property
    def name(self) -> str:
        """The run's name, or what the names begin with."""
        names = [run.name for run in self.runs]
        if len(names) == 1:
            return names[0]
        shared = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
        return "".join(letters[0] for letters in shared) + "*"

    def values(self, key: str) -> list[float]:
        """The number `key` of every run that has it."""
        return [value for run in self.runs if (value := run.numbers.get(key)) is not None]

    def mean_and_deviation(self, key: str) -> tuple[float, float] | None:
        """Mean and standard deviation (n - 1 below) of `key`; None for fewer than two runs that have it."""
        values = self.values(key)
        return (statistics.fmean(values), statistics.stdev(values)) if len(values) > 1 else None

    def record(self) -> dict[str, Any]:
        """For JSON."""
        statistics_of = {key: self.mean_and_deviation(key) for key in self.runs[0].numbers}
        return {
            "name": self.name,
            "runs": [run.name for run in self.runs],
            "mean": {key: found and found[0] for key, found in statistics_of.items()},
            "standard_deviation": {key: found and found[1] for key, found in statistics_of.items()},
        }


@dataclass(frozen=True)
class Comparison:
    """Runs in the order they were named in; `results` is the first evaluation: protocol and ceilings are all runs'."""

    runs: tuple[ComparedRun, ...]

    @property
    def results(self) -> dict[str, Any]:
        return next(run.results for run in self.runs if run.results is not None)

    @property
    def groups(self) -> list[SeedGroup]:
        by_recipe: dict[str, list[ComparedRun]] = {}
        for run in self.runs:
            by_recipe.setdefault(run.apart_from_seed, []).append(run)
        return [SeedGroup(tuple(runs)) for runs in by_recipe.values()]

    def ceiling(self, image_set: str) -> dict[str, float | None]:
        """The numbers of "real" images or "reconstructions", by the keys of `ComparedRun.numbers`."""
        return quality_numbers(self.results, image_set)

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "protocol": self.results["protocol"],
            "runs": [run.record() for run in self.runs],
            "seeds": [group.record() for group in self.groups if len(group.runs) > 1],
            "reconstructions": self.ceiling("reconstructions"),
            "real": self.ceiling("real"),
        }


def compare_runs(paths: Sequence[str], step: int | None = None) -> Comparison:
    """The runs in `paths`, each by its newest evaluation (of `step`), or by one whose folder is named.

    Raises UserError where a run is not there or named twice, where none was evaluated, and for different protocols.
    """
    runs = [compared_run(*find_evaluation(path, step)) for path in paths]
    names = [run.name for run in runs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{twice}: is named twice")
    evaluated = [run for run in runs if run.results is not None]
    if not evaluated:
        at_step = "" if step is None else f" at step {step}"
        raise UserError(f"{', '.join(paths)}: not evaluated{at_step}; run ifvit evaluate {paths[0]} first")
    for run in evaluated[1:]:
        check_same_protocol(evaluated[0], run)
    return Comparison(tuple(runs))


def find_evaluation(path: str, step: int | None) -> tuple[RunDirectory, dict[str, Any] | None]:
    """The run, and its evaluation if there is one, that `path` names: a run or the folder of an evaluation."""
    folder = Path(path)
    if not (folder / RESULTS_FILE).is_file():
        run = find_run(path)
        return run, newest_results(run, step)
    results = read_results(folder)
    assert results is not None
    if step not in (None, results["checkpoint"]["step"]):
        raise UserError(f"--step: is {step}, {path} is of step {results['checkpoint']['step']}; leave --step out")
    return find_run(folder.resolve().parents[1]), results


def compared_run(run: RunDirectory, results: dict[str, Any] | None) -> ComparedRun:
    recipe = run.read_recipe()
    last_step = None if results is None else results["checkpoint"]["step"]
    cost = training_cost(run, recipe.train.global_batch_size, last_step)
    spent = dict(zip(COST_NUMBERS, (cost.steps_per_second, cost.seconds, cost.loss), strict=True))
    quality = {} if results is None else quality_numbers(results, "generated")
    counted = count_flops(recipe.model)
    return ComparedRun(recipe.name, recipe, results, training_hardware(run), counted, spent | quality)


def quality_numbers(results: Mapping[str, Any], image_set: str) -> dict[str, float | None]:
    """The numbers of one image set by "{split}.{metric}.{key}"."""
    return {
        number_key(split, name, column): number(image_sets[image_set], name, column)
        for split, image_sets in results["splits"].items()
        for name, column in measured_columns(results["splits"])
    }


def check_same_protocol(first: ComparedRun, other: ComparedRun) -> None:
    assert first.results is not None and other.results is not None
    there, here = first.results["protocol"], other.results["protocol"]
    if differing := differing_fields(there, here):
        ours, theirs = dict(leaves(here)), dict(leaves(there))
        fields = "; ".join(f"{name} is {ours.get(name)} and not {theirs.get(name)}" for name in differing)
        raise UserError(
            f"{other.name}: was evaluated in another way than {first.name}: {fields}; evaluate both alike, or name the "
            "folders of two like evaluations"
        )
