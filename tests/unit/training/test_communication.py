"""Collectives are timed while they are asked to be, whether they are waited for at once or later."""

from types import SimpleNamespace
from typing import Any

import pytest

from ifvit.training import communication
from ifvit.training.communication import COLLECTIVES, CollectiveTimes


class Work:
    """A collective that was begun."""

    def __init__(self) -> None:
        self.waits: list[Any] = []

    def wait(self, timeout: float | None = None) -> str:
        self.waits.append(timeout)
        return "done"

    def is_completed(self) -> bool:
        return True


class Backend:
    """Has DeepSpeed's names. `async_op` gives what waits for the end."""

    def exchange(self, tensor: str, async_op: bool = False) -> Work | None:
        self.last = tensor
        return Work() if async_op else None


for each in COLLECTIVES:
    setattr(Backend, each, Backend.exchange)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    backend = Backend()
    monkeypatch.setattr(communication, "import_module", lambda name: SimpleNamespace(cdb=backend))
    return backend


class CountedClock:
    """Each moment is one second after the last one."""

    def __init__(self) -> None:
        self.moment = 0.0

    def now(self) -> float:
        self.moment += 1
        return self.moment

    def seconds(self, first: float, last: float) -> float:
        return last - first


def test_only_between_start_and_stop(backend: Any) -> None:
    times = CollectiveTimes(CountedClock())
    backend.all_reduce("before")
    times.start()
    backend.all_reduce("first")
    backend.reduce_scatter_tensor(tensor="second")
    assert times.stop() == [(1, 2), (3, 4)]
    backend.all_reduce("after")
    assert backend.last == "after"
    assert times.intervals == [(1, 2), (3, 4)]
    assert vars(backend) == {"last": "after"}


def test_the_wait_for_one_that_was_begun_counts_and_what_lies_between_does_not(backend: Any) -> None:
    clock = CountedClock()
    times = CollectiveTimes(clock)
    times.start()
    work = backend.all_gather_into_tensor("values", async_op=True)
    clock.moment += 100
    assert work.is_completed()
    assert work.wait(5.0) == "done"
    assert work.work.waits == [5.0]
    assert times.stop() == [(1, 2), (103, 104)]


def test_a_start_that_was_never_stopped_is_not_timed_twice(backend: Any) -> None:
    times = CollectiveTimes(CountedClock())
    times.start()
    times.start()
    backend.broadcast("values")
    assert len(times.stop()) == 1
    assert not vars(backend).keys() & set(COLLECTIVES)
