"""data_prep/shard_workers.py: what is heard of workers, and what is said when they end too early."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import pytest

from data_prep.shard_workers import follow
from data_prep.shards import default_workers
from ifvit.config.errors import UserError


def followed(*works: Callable[[Callable[..., None]], object]) -> list[tuple[str, int]]:
    """What `follow` hears from a process for each of `works`, which gets a function that sends."""
    context = multiprocessing.get_context("fork")  # the program forks from a process that does nothing else
    heard: list[tuple[str, int]] = []
    workers: dict[Any, Any] = {}

    def start(work: Callable[[Callable[..., None]], object], receiver: Connection, sender: Connection) -> None:
        receiver.close()
        work(lambda kind, value=None: sender.send((kind, value)))

    for work in works:
        receiver, sender = context.Pipe(duplex=False)
        workers[receiver] = context.Process(target=start, args=(work, receiver, sender), daemon=True)
        workers[receiver].start()
        sender.close()
    try:
        follow(workers, lambda kind, value: heard.append((kind, value)))
    finally:
        for process in workers.values():
            process.kill()
            process.join()
    return heard


def good(say: Callable[..., None]) -> None:
    say("encoded", 3)
    say("made", 1)
    say("ended")


def test_all_workers_are_heard() -> None:
    assert sorted(followed(good, good)) == [("encoded", 3), ("encoded", 3), ("made", 1), ("made", 1)]


def test_a_mistake_of_one_ends_all() -> None:
    def slow(say: Callable[..., None]) -> None:
        time.sleep(60)

    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        followed(slow, lambda say: say("error", ["a.b: is wrong", "c: too"]))
    assert caught.value.lines == ("a.b: is wrong", "c: too")
    assert time.monotonic() - started < 30


def test_a_killed_worker_is_told_after_the_others_have_ended() -> None:
    heard = []

    def killed(say: Callable[..., None]) -> None:
        say("encoded", 1)
        os.kill(os.getpid(), signal.SIGKILL)

    def later(say: Callable[..., None]) -> None:
        time.sleep(0.2)
        good(say)

    with pytest.raises(UserError, match=r"^--workers: 1 of 2 workers were ended by SIGKILL; .*goes on from here"):
        heard = followed(killed, later)
    assert heard == []


def test_a_worker_that_fails_is_our_fault() -> None:
    def failing(say: Callable[..., None]) -> None:
        os._exit(1)

    with pytest.raises(RuntimeError, match="1 of 2 workers failed"):
        followed(failing, good)


@pytest.mark.parametrize("given, expected", [("", 4), ("2", 1), ("4", 2), ("1", 1), ("64", 4)])
def test_workers_by_the_cores_that_a_task_has(monkeypatch: pytest.MonkeyPatch, given: str, expected: int) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
    assert default_workers() == expected
