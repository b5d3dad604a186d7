"""ifvit/training/stopping.py: how much time is left for the last save. The rest is in tests/faults."""

import pytest

from ifvit.runtime.distributed import Ranks
from ifvit.runtime.stop_requests import StopRequests
from ifvit.training.phases import CHECKPOINT, METRICS, SAMPLING, Phases
from ifvit.training.stopping import StopHook


def test_the_last_save_has_twice_the_time_of_the_longest_one_waited_for_or_not() -> None:
    phases, requests = Phases(), StopRequests(is_first_rank=True, max_hours=1000 / 3600)
    hook = StopHook(Ranks(), requests, phases, max_steps=10)
    assert hook.seconds_to_save() == 50
    phases.enter(CHECKPOINT, 1)
    phases.took(CHECKPOINT, 100)
    phases.took(CHECKPOINT, 90)
    phases.enter("hooks", 1)
    assert hook.seconds_to_save() == pytest.approx(250)


def test_the_next_step_may_have_a_grid_and_a_validation() -> None:
    phases, requests = Phases(), StopRequests(is_first_rank=True, max_hours=1000 / 3600)
    phases.took(SAMPLING, 30)
    phases.took(METRICS, 20)
    phases.step_seconds.extend([1, 2, 1])
    assert StopHook(Ranks(), requests, phases, max_steps=10).seconds_to_save() == pytest.approx(102)
