"""Whether this process was told to stop: by a signal, or by its share of wall clock running out."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import psutil

from ifvit.config.exit_codes import of_signal
from ifvit.runtime.standard_error import say

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# A launcher passes on what its processes got from the terminal already: such a pair counts once.
SECONDS_OF_ONE_REQUEST = 1.0
SECONDS_PER_HOUR = 3600.0


class StopRequests:
    """Inside its `with` block a first signal is only remembered, and a second one ends the process at once.

    A thread hears of the signals too: a main thread that waits in a collective operation runs no handler.

    Args:
        is_first_rank: whether to say on stderr that a signal was received.
        max_hours: wall clock of one start, counted from the process's start; None: no limit.
    """

    def __init__(self, is_first_rank: bool, max_hours: float | None = None) -> None:
        self.is_first_rank = is_first_rank
        self.max_seconds = None if max_hours is None else max_hours * SECONDS_PER_HOUR
        age = time.time() - psutil.Process().create_time()
        self.started = time.monotonic() - age
        self.received: int | None = None  # the first signal's number
        self.previous_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequests":
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        self.previous_wakeup = signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
        self.thread = threading.Thread(target=self.listen, name="stop requests", daemon=True)
        self.thread.start()
        for number in SIGNALS:
            self.previous_handlers[number] = signal.signal(number, self.remember)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self.previous_wakeup)
        os.close(self.writer)
        self.thread.join()
        os.close(self.reader)

    def remember(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number

    def listen(self) -> None:
        """Ends when the pipe is closed."""
        first_time: float | None = None
        while data := os.read(self.reader, 1):
            if (number := data[0]) not in SIGNALS:
                continue
            name, now = signal.Signals(number).name, time.monotonic()
            if first_time is None:
                first_time = now
                self.tell(f"{name}: stops and saves after this step; a second signal ends it at once")
            elif now - first_time > SECONDS_OF_ONE_REQUEST:
                self.tell(f"{name}: the second signal, ended at once; the last checkpoint is from before")
                os._exit(of_signal(number))

    def tell(self, line: str) -> None:
        if self.is_first_rank:
            say(line)

    def is_out_of_time(self, seconds_to_save: float) -> bool:
        """Whether the limit will be reached within `seconds_to_save`."""
        if self.max_seconds is None:
            return False
        return time.monotonic() - self.started + seconds_to_save >= self.max_seconds
