"""Several threads, results in order, the first exception, and nobody who keeps a process alive."""

import threading

import pytest

from ifvit.checkpoint.daemon_threads import in_daemon_threads


def test_results_come_in_order_from_several_threads() -> None:
    both = threading.Barrier(2, timeout=60)

    def work(item: int) -> tuple[int, bool]:
        both.wait()  # with one thread nobody else comes
        return item, threading.current_thread().daemon

    assert in_daemon_threads(work, range(6), 2) == [(item, True) for item in range(6)]
    assert in_daemon_threads(work, [], 2) == []


def test_an_exception_is_raised_and_nothing_more_begun() -> None:
    begun = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 1:
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        in_daemon_threads(work, range(100), 1)
    assert begun == [0, 1]
