"""One rank's mistake ends all ranks, and is said once; and the group for long waits."""

import torch
from torch import distributed as dist

from ifvit.config.errors import UserError
from ifvit.runtime.agreement import agreed_errors, on_first_rank, patient_group
from ifvit.runtime.distributed import Ranks, start_process_group, stop_process_group
from tests.distributed.rank_pool import RankPool
from tests.forked_process import exit_code, forked


def fail_on(ranks: Ranks, failing: list[int]) -> str:
    try:
        with agreed_errors(ranks):
            if ranks.rank in failing:
                raise UserError(f"rank {ranks.rank} is wrong")
    except UserError as error:
        return str(error)
    except SystemExit as stop:
        return f"exit {stop.code}"
    return "went on"


def first_rank_only(ranks: Ranks, fails: bool) -> object:
    called = []

    def compute() -> int:
        called.append(True)
        if fails:
            raise UserError("no")
        return 41

    try:
        return on_first_rank(ranks, compute), bool(called)
    except UserError as error:
        return str(error)
    except SystemExit as stop:
        return stop.code


def test_a_mistake_on_any_rank_ends_all(pools: dict[int, RankPool]) -> None:
    assert pools[2].run(fail_on, failing=[1]) == ["rank 1 is wrong", "exit 2"]
    assert pools[2].run(fail_on, failing=[0, 1]) == ["rank 0 is wrong", "exit 2"]
    assert pools[2].run(fail_on, failing=[]) == ["went on", "went on"]
    assert pools[1].run(fail_on, failing=[0]) == ["rank 0 is wrong"]


def test_the_first_rank_computes_and_all_hear_it(pools: dict[int, RankPool]) -> None:
    assert pools[2].run(first_rank_only, fails=False) == [(41, True), (41, False)]
    assert pools[2].run(first_rank_only, fails=True) == ["no", 2]


def patient_groups(ranks: Ranks) -> tuple[bool, float]:
    """Whether two calls give the same group, and the sum of the ranks' ones by it."""
    first, second = patient_group(), patient_group()
    total = torch.ones(1)
    dist.all_reduce(total, group=second)
    return first is second, total.item()


def test_one_group_for_long_waits(pools: dict[int, RankPool]) -> None:
    assert pools[2].run(patient_groups) == [(True, 2.0)] * 2


def patient_groups_of_two_process_groups() -> None:
    groups = []
    for _ in range(2):
        start_process_group(Ranks(), torch.device("cpu"), timeout_seconds=60)
        assert patient_groups(Ranks()) == (True, 1.0)
        groups.append(patient_group())
        stop_process_group()
    assert groups[0] is not groups[1]


def test_a_new_process_group_has_a_new_group_for_long_waits() -> None:
    assert exit_code(forked(patient_groups_of_two_process_groups)) == 0
