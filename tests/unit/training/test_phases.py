"""Where a process says that it is, and which steps have long phases of hooks."""

from ifvit.training.phases import DATA, HOOKS, ROLLBACK, SAMPLING, PhaseHook, Phases
from ifvit.training.state import StepResult, TrainState
from tests.unit.training.step_results import result_of


def test_a_process_only_gets_further_also_by_a_rollback() -> None:
    phases = Phases()
    positions = [phases.position]
    for name, step in ((DATA, 7), (HOOKS, 7), (DATA, 8), (ROLLBACK, 8), (DATA, 5), (HOOKS, 5), (DATA, 6)):
        phases.enter(name, step)
        positions.append(phases.position)
    assert positions == sorted(set(positions))
    assert [position.num_rollbacks for position in positions] == [0] * 5 + [1] * 3


def test_a_rollback_by_one_step_makes_that_step_again() -> None:
    phases = Phases()
    phases.enter(ROLLBACK, 8)
    before = phases.position
    phases.enter(DATA, 8)
    assert phases.position > before


class Seeing:
    """A hook that notes the phases that it is called in."""

    def __init__(self, phases: Phases) -> None:
        self.phases = phases
        self.seen: list[str] = []

    def on_start(self, state: TrainState) -> None: ...

    def on_step(self, state: TrainState, result: StepResult) -> None:
        self.seen.append(self.phases.position.phase)

    def on_stop(self, state: TrainState) -> None:
        self.seen.append(self.phases.position.phase)


def test_a_hook_may_take_long_only_where_it_has_its_work_to_do() -> None:
    """In all other steps the watchdog waits for it no longer than for the rest of a step."""
    phases = Phases()
    hook = Seeing(phases)
    watched = PhaseHook(hook, SAMPLING, phases, lambda state: state.step == 2)
    for step in (1, 2, 3):
        phases.enter(HOOKS, step)
        watched.on_step(TrainState(step=step), result_of())
        assert phases.position.phase == HOOKS
    watched.on_stop(TrainState(step=3))
    assert hook.seen == [HOOKS, SAMPLING, HOOKS, SAMPLING]
