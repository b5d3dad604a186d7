"""tests/distributed/rank_pool.py: a rank that fails alone ends its case, and the next case has new ranks."""

import os
import signal
import socket
from collections.abc import Iterator

import pytest
import torch.distributed as dist

from ifvit.runtime.distributed import Ranks
from tests.distributed.rank_pool import RankPool, reserved_port


@pytest.fixture(scope="module")
def pool() -> Iterator[RankPool]:
    pool = RankPool(2)
    yield pool
    pool.close()


def process_ids(ranks: Ranks) -> list[int]:
    gathered = [0] * ranks.world_size
    dist.all_gather_object(gathered, os.getpid())
    return gathered


def fail_beside_a_waiting_rank(ranks: Ranks, failing: int, is_killed: bool) -> None:
    if ranks.rank == failing:
        if is_killed:
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("on this rank alone")
    dist.barrier()


@pytest.mark.parametrize(
    ("is_killed", "told"),
    [(False, r"Traceback [\s\S]*ValueError: on this rank alone"), (True, "ended with exit code -9")],
)
def test_the_rank_that_fails_is_shown_and_nobody_waits_for_it(pool: RankPool, is_killed: bool, told: str) -> None:
    before, same = pool.run(process_ids)
    assert before == same
    with pytest.raises(AssertionError, match=f"rank 1 of 2:\n{told}"):
        pool.run(fail_beside_a_waiting_rank, failing=1, is_killed=is_killed)
    after, same = pool.run(process_ids)
    assert after == same
    assert not {*before} & {*after}


def test_a_reserved_port_is_nobody_elses() -> None:
    with reserved_port() as reserved, socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(reserved.getsockname())
