"""What is done while a disk is full or broken: it is said, and training goes on."""

from collections.abc import Iterator
from contextlib import contextmanager

from ifvit.runtime.standard_error import say


class Outage:
    """Of what is written beside training. Whether that is worth going on for, the saves of checkpoints decide."""

    def __init__(self, what: str, meanwhile: str) -> None:
        """`what` cannot be written in an outage, and what happens to it `meanwhile`."""
        self.what = what
        self.meanwhile = meanwhile
        self.is_on = False

    @contextmanager
    def survived(self) -> Iterator[None]:
        """An OSError of the block ends the block alone. The first of an outage is said on stderr, and its end."""
        try:
            yield
        except OSError as error:
            if not self.is_on:
                say(f"{self.what} CANNOT BE WRITTEN: {error.strerror or error}; training goes on, {self.meanwhile}")
            self.is_on = True
        else:
            if self.is_on:
                say(f"{self.what} can be written again")
            self.is_on = False
