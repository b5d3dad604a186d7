"""One rank's mistake ends all ranks, and is said once."""

from ifvit.config.errors import UserError
from ifvit.runtime.agreement import agreed_errors, on_first_rank
from ifvit.runtime.distributed import Ranks
from tests.distributed.rank_pool import RankPool


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
