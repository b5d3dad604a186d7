"""What the log knows of a training run beyond its loss: things that are measured beside the loop."""

from typing import Protocol

from ifvit.config.schema import Recipe
from ifvit.training.state import Hook, StepResult, TrainState


class Meter(Hook, Protocol):
    """Measures something of training. `on_step` must not wait for the device."""

    def metrics(self, state: TrainState, result: StepResult) -> dict[str, float]:
        """For the log, after `on_step` of a logged step, on all ranks alike: it may use collective operations."""
        ...


def is_logged(step: int, recipe: Recipe) -> bool:
    """Whether a line of metrics.jsonl is written after `step` steps."""
    return step % recipe.tracking.log_every_steps == 0 or step == recipe.train.max_steps or is_validated(step, recipe)


def is_validated(step: int, recipe: Recipe) -> bool:
    """Whether the validation loss is measured after `step` steps."""
    if recipe.data.validation_split is None:
        return False
    return step % recipe.tracking.validation_every_steps == 0 or step == recipe.train.max_steps
