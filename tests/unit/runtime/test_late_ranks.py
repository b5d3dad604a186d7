"""Who is late is decided from the beats alone."""

import pytest

from ifvit.runtime.beats import Beat
from ifvit.runtime.late_ranks import LateRanks


def beat(rank: int, count: int, step: int = 5, num_phases: int = 2, num_rollbacks: int = 0, **others: object) -> Beat:
    values = {"phase": "backward", "place": "loop.py:1 train", "step_seconds": 0.1} | others
    return Beat(rank, f"host{rank}", 100 + rank, count, num_rollbacks, step, num_phases, **values)  # type: ignore[arg-type]


def listener(world_size: int = 2) -> LateRanks:
    return LateRanks(world_size, 10, ["sampling"], ["fetching"])


def heard(late_ranks: LateRanks, seconds: int, *beats: Beat, silent: tuple[int, ...] = ()) -> list[str]:
    """`beats` again and again, a second apart; only the silent ones' counts stay."""
    for second in range(seconds):
        news = [beat if beat.rank in silent else Beat(**{**vars(beat), "count": second}) for beat in beats]
        late_ranks.hear(news, 1.0)
    return late_ranks.late()


def test_ranks_that_get_on_are_never_late() -> None:
    late_ranks = listener()
    for second in range(100):
        late_ranks.hear([beat(0, second, step=second // 9), beat(1, second, step=second // 9)], 1.0)
        assert late_ranks.late() == []


def test_the_rank_that_is_furthest_behind_is_named_and_those_that_wait_are_not() -> None:
    late_ranks = listener(3)
    beats = beat(0, 0), beat(1, 0, num_phases=1, phase="data"), beat(2, 0)
    assert heard(late_ranks, 10, *beats) == []
    (line,) = heard(late_ranks, 2, *beats)
    assert line.startswith("rank 1 on host1 (process 101) does not get on: ")
    assert line.endswith(" s in data of step 5 (loop.py:1 train)")


def test_a_rank_that_has_not_come_back_from_a_rollback_is_named_and_not_those_that_have() -> None:
    others = beat(0, 0, step=5, num_rollbacks=1), beat(2, 0, step=5, num_rollbacks=1)
    (line,) = heard(listener(3), 12, *others, beat(1, 0, step=8, num_phases=30))
    assert line.startswith("rank 1 on host1 (process 101) does not get on: ")


def test_all_are_named_where_nobody_is_behind() -> None:
    assert len(heard(listener(), 12, beat(0, 0), beat(1, 0))) == 2


def test_a_rank_without_a_sign_of_life_is_named_and_not_those_behind_it() -> None:
    (line,) = heard(listener(), 12, beat(0, 0), beat(1, 0, step=6), silent=(1,))
    assert line.startswith("rank 1 on host1 (process 101) gave no sign of life for 11 s")


@pytest.mark.parametrize(
    ("others", "limit"),
    [
        ({}, 10),
        ({"step_seconds": 3.0}, 30),
        ({"step_seconds": None}, 100),
        ({"phase": "sampling"}, 100),
        ({"phase": "sampling", "step_seconds": 30.0}, 300),
        ({"phase": "fetching", "step_seconds": None}, 10_000),
    ],
)
def test_how_long_a_rank_may_take(others: dict[str, object], limit: int) -> None:
    late_ranks = listener(1)
    assert heard(late_ranks, limit, beat(0, 0, **others)) == []
    assert bool(heard(late_ranks, 1, beat(0, 0, **others))) == (limit < 10_000)


def test_a_rank_that_waits_for_a_long_phase_of_another_is_not_late() -> None:
    assert heard(listener(), 50, beat(0, 0, phase="sampling"), beat(1, 0, step=6)) == []


def test_the_first_failure_is_named() -> None:
    failures = [beat(rank, 0, failure=f"Error: {rank}", failure_order=2 - rank) for rank in (0, 1)]
    assert heard(listener(3), 5, *failures, beat(2, 0)) == []
    (line,) = heard(listener(3), 12, *failures, beat(2, 0))
    assert line == "rank 1 on host1 (process 101) failed in backward of step 5 (loop.py:1 train): Error: 1"


def test_those_who_only_hear_rank_0_end_after_its_failure_and_not_because_it_waits() -> None:
    """Its process may hang at its end and keep the store, so that nothing else tells them."""
    late_ranks = listener(3)
    heard(late_ranks, 500, beat(0, 0))
    assert late_ranks.lost() == []
    failed = beat(0, 0, failure="Error: 0", failure_order=1)
    heard(late_ranks, 10, failed, silent=(0,))
    assert late_ranks.lost() == []  # it may find out that another rank is to blame
    heard(late_ranks, 1, failed, silent=(0,))
    (line,) = late_ranks.lost()
    assert line == "rank 0 on host0 (process 100) failed in backward of step 5 (loop.py:1 train): Error: 0"


def test_a_rank_that_left_is_not_waited_for() -> None:
    assert heard(listener(), 200, beat(0, 0, has_left=True), beat(1, 0, has_left=True), silent=(0, 1)) == []
