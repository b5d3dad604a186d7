"""An average of the newest values, for people to watch."""


class RunningAverage:
    """Exponential, of all values so far; the newest one weighs `share` once there are many."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.value: float | None = None

    def add(self, newest: float) -> float:
        """The average with `newest`; the first value is its own average."""
        self.value = newest if self.value is None else (1 - self.share) * self.value + self.share * newest
        return self.value
