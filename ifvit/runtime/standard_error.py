"""Standard error that may lie on the disk that is full: what is said there must not end what it is said of."""

import io
import sys
from contextlib import suppress
from typing import Any


class LossyFile(io.FileIO):
    """Takes all that is written to it. What the disk refuses is lost."""

    def write(self, data: Any, /) -> int:
        with suppress(OSError):
            return super().write(data)
        return len(data)


def survive_unwritable_stderr() -> None:
    """From now on no write to standard error raises an OSError. Leaves alone what a test has put in its place."""
    real = sys.__stderr__
    if real is not None and sys.stderr is real:
        file = io.BufferedWriter(LossyFile(real.fileno(), "wb", closefd=False))
        sys.stderr = io.TextIOWrapper(file, real.encoding, real.errors, line_buffering=True)
