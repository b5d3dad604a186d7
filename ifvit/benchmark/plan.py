"""What a training run will need: memory, time, disk. From formulas and the meta device; no GPU is asked."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from ifvit.benchmark.plan_memory import MemoryPart, memory_parts
from ifvit.benchmark.plan_request import PlanRequest
from ifvit.benchmark.plan_storage import SECONDS_PER_HOUR, CheckpointInterval, Storage, checkpoint_interval, storage
from ifvit.benchmark.plan_time import Communication, StepSeconds, step_communication, step_seconds
from ifvit.benchmark.planned_model import PlannedModel, planned_model
from ifvit.config.schema import Recipe

MAX_CHANGES = 3  # that are proposed where a run does not fit


@dataclass(frozen=True)
class Change:
    """A change of the recipe with which it fits."""

    setting: str  # as --set takes it
    memory_gb: float


@dataclass(frozen=True)
class Plan:
    """Bytes and seconds of one rank, unless said otherwise."""

    request: PlanRequest
    model: PlannedModel

    @cached_property
    def parts(self) -> list[MemoryPart]:
        return memory_parts(self.request, self.model)

    @cached_property
    def communication(self) -> Communication:
        return step_communication(self.request, self.model)

    @cached_property
    def seconds(self) -> StepSeconds:
        return step_seconds(self.request, self.model, self.communication)

    @cached_property
    def storage(self) -> Storage:
        return storage(self.request, self.model.num_parameters)

    @cached_property
    def checkpoint_interval(self) -> CheckpointInterval:
        return checkpoint_interval(self.request, self.storage.checkpoint)

    @property
    def memory_gb(self) -> float:
        return sum(part.num_bytes for part in self.parts) / 1e9

    @property
    def fits(self) -> bool:
        return self.memory_gb <= self.request.device.memory_gb

    @property
    def largest_part(self) -> MemoryPart:
        return max(self.parts, key=lambda part: part.num_bytes)

    @property
    def hours(self) -> float:
        """Of all steps, without failures, checkpoints and sample grids."""
        return self.request.recipe.train.max_steps * self.seconds.step / SECONDS_PER_HOUR


def make_plan(request: PlanRequest) -> Plan:
    return Plan(request, planned_model(request.recipe))


def fitting_changes(plan: Plan) -> list[Change]:
    """The mildest change of each kind with which the run fits; none where it fits, or where no single change helps."""
    if plan.fits:
        return []
    found: dict[str, Change] = {}
    for kind, setting, recipe in changed_recipes(plan.request.recipe):
        if kind not in found:
            changed = make_plan(replace(plan.request, recipe=recipe))
            if changed.fits:
                found[kind] = Change(setting, changed.memory_gb)
    return list(found.values())[:MAX_CHANGES]


def changed_recipes(recipe: Recipe) -> Iterator[tuple[str, str, Recipe]]:
    """(kind, setting, recipe), the mildest of each kind first."""
    size = recipe.train.micro_batch_size
    for smaller in range(size - 1, 0, -1):
        if size % smaller == 0:
            yield "micro-batch", f"train.micro_batch_size={smaller}", with_train(recipe, micro_batch_size=smaller)
    for rate in (0.25, 0.5, 0.75, 1.0):
        if rate > recipe.train.activation_checkpointing:
            changed = with_train(recipe, activation_checkpointing=rate)
            yield "recomputation", f"train.activation_checkpointing={rate:g}", changed
    for stage in range(recipe.runtime.zero_stage + 1, 4):
        runtime = recipe.runtime.model_copy(update={"zero_stage": stage})
        yield "stage", f"runtime.zero_stage={stage}", recipe.model_copy(update={"runtime": runtime})


def with_train(recipe: Recipe, **fields: object) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=fields)})
