"""Standard error that may lie on a full disk, or that nobody reads: what is said there must not end or hold up what it
is said of."""

import io
import sys
import threading
from contextlib import suppress
from typing import Any

SECONDS_TO_SAY = 10.0  # where nobody reads it


class LossyFile(io.FileIO):
    """Takes all that is written to it. What the disk or a reader without time refuses is lost."""

    def write(self, data: Any, /) -> int:
        with suppress(OSError):
            return super().write(data) or len(data)  # None: it would have to wait, and is told not to
        return len(data)


def survive_unwritable_stderr() -> None:
    """From now on no write to standard error raises an OSError. Leaves alone what a test has put in its place."""
    real = sys.__stderr__
    if real is not None and sys.stderr is real:
        file = io.BufferedWriter(LossyFile(real.fileno(), "wb", closefd=False))
        sys.stderr = io.TextIOWrapper(file, real.encoding, real.errors, line_buffering=True)


def say(text: str) -> None:
    """Write `text`, one line or more, to standard error at once."""
    print(text, file=sys.stderr, flush=True)


def try_to_say(text: str) -> None:
    """As `say`, of a process that must end: it waits SECONDS_TO_SAY at most."""
    thread = threading.Thread(target=say, args=(text,), daemon=True)
    thread.start()
    thread.join(SECONDS_TO_SAY)
