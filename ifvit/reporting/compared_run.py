"""One run, export or imported weights in a comparison: what it is, what it cost and how good it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifvit.config.errors import UserError
from ifvit.config.loading import leaves, load_recipe
from ifvit.config.schema import Recipe
from ifvit.evaluation.results import RECIPE_FILE, newest_evaluation, read_results
from ifvit.model.flops import count_flops
from ifvit.model.weights import CONFIG_FILE
from ifvit.reporting.numbers import measured_columns, number, number_key
from ifvit.reporting.training_cost import training_cost, training_hardware
from ifvit.runtime.run_directory import CHANGEABLE, RunDirectory, find_run

COST_NUMBERS = ("steps_per_second", "training_seconds", "loss")


@dataclass(frozen=True)
class ComparedRun:
    """One run. `numbers` has COST_NUMBERS and, where it was evaluated, "{split}.{metric}.{key}" of its images."""

    name: str
    detail: str  # which of several of that name, "step 100, EMA 0.9" say; "" where the name is enough
    recipe: Recipe
    results: dict[str, Any] | None
    hardware: str
    counted: dict[str, int | float]  # parameters, gflops, gflops_with_attention
    numbers: dict[str, float | None]

    @property
    def label(self) -> str:
        """Tells it from all others it is compared with."""
        return f"{self.name} ({self.detail})" if self.detail else self.name

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
        """Equal for two runs whose evaluated weights differ only in name, seed and where things lie.

        How far an export or imported weights were trained is not known, so they are like nothing else.
        """
        if self.results is None or self.step is None:
            return self.label
        fields = [
            (dotted, value)
            for dotted, value in leaves(self.recipe.model_dump(mode="json"))
            # What sampling says of the images is in the protocol, which is the same for all.
            if dotted not in ("name", "seed") and not dotted.startswith((*CHANGEABLE, "sampling."))
        ]
        weights = {name: value for name, value in self.results["checkpoint"].items() if name != "weights_sha256"}
        return repr((fields, sorted(leaves(weights))))

    def has_weights_of(self, other: "ComparedRun") -> bool:
        assert self.results is not None and other.results is not None
        return bool(self.results["checkpoint"]["weights_sha256"] == other.results["checkpoint"]["weights_sha256"])

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": self.label,
            "conditioning": self.recipe.model.conditioning,
            "fusion": self.recipe.model.fusion.model_dump(mode="json"),
            **self.counted,
            "global_batch_size": self.recipe.train.global_batch_size,
            "seed": self.recipe.seed,
            "hardware": self.hardware,
            "checkpoint": None if self.results is None else self.results["checkpoint"],
            "numbers": self.numbers,
        }


def find_evaluation(path: str, step: int | None) -> tuple[RunDirectory, Path | None]:
    """The run or model folder, and of its evaluations the one that `path` names or the newest, if there is one."""
    folder = Path(path)
    is_model = (folder / CONFIG_FILE).is_file()
    if not is_model and (results := read_results(folder)) is not None:
        if step not in (None, results["checkpoint"]["step"]):
            raise UserError(f"--step: is {step}, {path} is of step {results['checkpoint']['step']}; leave --step out")
        return RunDirectory(folder.resolve().parents[1]), folder.resolve()
    own = RunDirectory(folder) if is_model else find_run(path)
    newest = newest_evaluation(own, step)
    if newest is None and not own.recipe_file.is_file():
        raise UserError(f"{path}: not evaluated; run ifvit evaluate {path} --recipe RECIPE first")
    return own, newest and newest.resolve()


def compared_run(own: RunDirectory, folder: Path | None) -> ComparedRun:
    """A run, or a model folder, by the evaluation in `folder`; its recipe is the one it was evaluated with."""
    results = None if folder is None else read_results(folder)
    recipe = own.read_recipe() if folder is None else load_recipe(folder / RECIPE_FILE)
    last_step = None if results is None else results["checkpoint"]["step"]
    cost = training_cost(own, recipe.train.global_batch_size, last_step)
    spent = dict(zip(COST_NUMBERS, (cost.steps_per_second, cost.seconds, cost.loss), strict=True))
    quality = {} if results is None else quality_numbers(results, "generated")
    hardware = training_hardware(own, last_step)
    return ComparedRun(recipe.name, "", recipe, results, hardware, count_flops(recipe.model), spent | quality)


def quality_numbers(results: Mapping[str, Any], image_set: str) -> dict[str, float | None]:
    """The numbers of one image set by "{split}.{metric}.{key}"."""
    return {
        number_key(split, name, column): number(image_sets[image_set], name, column)
        for split, image_sets in results["splits"].items()
        for name, column in measured_columns([results])
    }
