"""Work on files by a few threads that no process waits for when it ends: storage may hang for ever."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_daemon_threads(function: Callable[[Item], Result], items: Sequence[Item], num_threads: int) -> list[Result]:
    """`function` of each of `items`, in their order. The first exception is raised once all threads have ended."""
    results: dict[int, Result] = {}
    errors: list[Exception] = []
    waiting = iter(enumerate(items))
    taking = threading.Lock()

    def work() -> None:
        while not errors:
            with taking:
                taken = next(waiting, None)
            if taken is None:
                return
            index, item = taken
            try:
                results[index] = function(item)
            except Exception as error:  # raised again below
                errors.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[index] for index in range(len(items))]
