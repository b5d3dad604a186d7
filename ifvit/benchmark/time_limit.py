"""Work that ends when its time is over."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class NoTimeLeftError(Exception):
    """The work's time is over."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises NoTimeLeftError in the block, which the main thread must run, after `seconds`; at once if there are none.

    A process that `subprocess.run` waits for is killed then.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise NoTimeLeftError

    if seconds <= 0:
        raise NoTimeLeftError
    previous = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
