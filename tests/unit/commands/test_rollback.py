"""What the watchdog sees of a rollback. That a rollback is exact: tests/faults."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ifvit.commands.rollback import RollbackHook
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.run_directory import RunDirectory
from ifvit.training.phases import DATA, START, Phases
from ifvit.training.state import BadStepsRecord, NonFiniteError, TrainState
from tests.unit.training.step_results import recipe_of


def test_a_rollback_at_a_start_is_no_step(tmp_path: Path) -> None:
    """The step after it is the first one, which may take long."""
    phases = Phases()
    phases.enter(START, 0)
    recipe = recipe_of("train.bad_steps.max_in_a_row=2", "train.bad_steps.max_rollbacks=1")
    parts: Any = SimpleNamespace(phases=phases, recipe=recipe, directory=RunDirectory(tmp_path), ranks=Ranks())
    saves: Any = SimpleNamespace(finish=lambda: None)
    record = BadStepsRecord(total=2, in_a_row=2, last_batch=7)
    with pytest.raises(NonFiniteError, match="no checkpoint from before them"):
        RollbackHook(parts, saves, counting=[]).on_start(TrainState(step=8, bad_steps=record))
    phases.enter(DATA, 5)
    assert not phases.step_seconds
