"""Where a process says that it is."""

from ifvit.training.phases import DATA, HOOKS, ROLLBACK, Phases


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
