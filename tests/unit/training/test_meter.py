"""Which steps are logged and validated."""

from ifvit.training.meter import is_logged, is_validated
from tests.unit.training.step_results import recipe_of

EVERY = ["tracking.log_every_steps=4", "train.max_steps=15"]
VALIDATED = ["data.validation_split=held_out", "tracking.validation_every_steps=6"]


def test_logged_every_so_many_steps_and_at_the_end() -> None:
    recipe = recipe_of(*EVERY)
    assert [step for step in range(1, 16) if is_logged(step, recipe)] == [4, 8, 12, 15]
    assert not [step for step in range(1, 16) if is_validated(step, recipe)]


def test_a_validated_step_is_logged() -> None:
    recipe = recipe_of(*EVERY, *VALIDATED)
    assert [step for step in range(1, 16) if is_validated(step, recipe)] == [6, 12, 15]
    assert [step for step in range(1, 16) if is_logged(step, recipe)] == [4, 6, 8, 12, 15]
