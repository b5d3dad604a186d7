"""data_prep/worker_processes.py: what is heard of workers, what is said when they end too early, and what is left."""

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from data_prep.worker_processes import Report, run_workers
from ifvit.config.errors import UserError
from tests.forked_process import exit_code, forked

DEADLINE_SECONDS = 120  # far more than anything here takes on a busy machine


def heard_of(work: Callable[[int, Report], object], num_workers: int = 2) -> list[tuple[str, int]]:
    heard: list[tuple[str, int]] = []
    run_workers(work, num_workers, [], lambda kind, value: heard.append((kind, value)))
    return heard


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_in(folder: Path) -> list[int]:
    """The workers that have said that they work: each and the process that it was forked from."""
    return [int(name) for path in folder.glob("*-*") for name in path.name.split("-")]


def good(number: int, report: Report) -> None:
    report("encoded", 3)
    report("made", number)


def endless(folder: Path, number: int, report: Report) -> None:
    (folder / f"{os.getpid()}-{os.getppid()}").touch()
    time.sleep(40)
    (folder / "late").touch()  # nobody has ended it


def one_mistaken(folder: Path, number: int, report: Report) -> None:
    if number == 1:
        wait_for(lambda: list(folder.iterdir()))
        raise UserError("a.b: is wrong", "c: too")
    endless(folder, number, report)


def one_killed(number: int, report: Report) -> None:
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    good(number, report)


def one_failing(number: int, report: Report) -> None:
    if number == 0:
        sys.exit(1)


def test_all_workers_are_heard() -> None:
    assert sorted(heard_of(good)) == [("encoded", 3), ("encoded", 3), ("made", 0), ("made", 1)]


def interrupted(number: int, report: Report) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getppid(), signal.SIGINT)
    good(number, report)


def test_ctrl_c_is_for_the_one_that_started_all() -> None:
    assert len(heard_of(interrupted)) == 4


def test_a_mistake_of_one_ends_all(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        heard_of(partial(one_mistaken, tmp_path))
    assert caught.value.lines == ("a.b: is wrong", "c: too")
    wait_for(lambda: not any(map(is_running, processes_in(tmp_path))))
    assert not (tmp_path / "late").exists()


@pytest.mark.fault(
    "F13",
    injected="a worker that makes shards killed",
    detected="the signal and the number of workers are named, no hang",
    recovered="the same command goes on from there",
    lost="the shard it was making",
)
def test_killed_workers_are_told() -> None:
    with pytest.raises(UserError, match=r"^--workers: 1 of 2 workers were ended by SIGKILL; .*goes on from here"):
        heard_of(one_killed)


def test_a_worker_that_fails_is_our_fault() -> None:
    with pytest.raises(RuntimeError, match="1 of 2 workers failed"):
        heard_of(one_failing)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_one_that_started_all(tmp_path: Path, number: signal.Signals) -> None:
    process = forked(lambda: heard_of(partial(endless, tmp_path)))
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
    os.kill(process, number)
    assert exit_code(process) == -number
    wait_for(lambda: not any(map(is_running, processes_in(tmp_path))))
    assert not (tmp_path / "late").exists()
