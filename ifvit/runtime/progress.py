"""One progress display for every job: a bar on a terminal, plain lines in a log file. Both go to stderr."""

import sys
import time
from types import TracebackType
from typing import TextIO

SECONDS_PER_LINE = 30.0  # without a terminal: a line at least this rarely ...
SHARE_PER_LINE = 0.05  # ... or whenever this much of the whole was done, whichever comes first
SECONDS_BETWEEN_LINES = 1.0  # short jobs pass many 5% marks in a second; they need no line each
SECONDS_MEASURED = 0.5  # a rate over less says little: what is counted may have been done before


class Progress:
    """Counts up to `total`, with rate and remaining time; `unit` is the plural of what is counted.

        with Progress(1000, "training", unit="steps", initial=200) as progress:
            progress.advance(postfix_text="loss 0.123")

    `initial` units were done before: they count as done, but not for the rate.
    """

    def __init__(
        self, total: int, description: str, unit: str = "items", initial: int = 0, stream: TextIO | None = None
    ) -> None:
        self.total = total
        self.description = description
        self.unit = unit
        self.initial = initial
        self.done = initial
        self.stream = stream or sys.stderr
        self.postfix_text = ""
        self.started = self.line_time = time.monotonic()
        self.line_done = initial
        self.bar = None
        if self.stream.isatty():
            from tqdm import tqdm

            self.bar = tqdm(
                total=total, desc=description, unit=unit, initial=initial, file=self.stream, dynamic_ncols=True
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def advance(self, n: int = 1, postfix_text: str | None = None) -> None:
        """Count `n` more; `postfix_text` stands behind the count from now on."""
        self.done += n
        if postfix_text is not None:
            self.postfix_text = postfix_text
        if self.bar is not None:
            if postfix_text is not None:
                self.bar.set_postfix_str(postfix_text, refresh=False)
            self.bar.update(n)
        elif self.line_is_due(time.monotonic()):
            self.print_line()

    def go_back(self, done: int) -> None:
        """Only `done` units count as done; the rate is measured anew."""
        self.done = self.initial = self.line_done = done
        self.started = self.line_time = time.monotonic()
        if self.bar is not None:
            self.bar.reset()
            self.bar.initial = self.bar.n = self.bar.last_print_n = done
            self.bar.refresh()

    def write(self, line: str) -> None:
        """Print `line` on its own, above the bar where there is one."""
        if self.bar is not None:
            self.bar.write(line, file=self.stream)
        else:
            print(line, file=self.stream, flush=True)

    def close(self) -> None:
        """End the bar, or print the last plain line unless it stands there already."""
        if self.bar is not None:
            self.bar.close()
        elif self.done > self.line_done:
            self.print_line()

    def line_is_due(self, now: float) -> bool:
        silent = now - self.line_time
        share = (self.done - self.line_done) / max(self.total, 1)
        return silent >= SECONDS_PER_LINE or (share >= SHARE_PER_LINE and silent >= SECONDS_BETWEEN_LINES)

    def print_line(self) -> None:
        now = time.monotonic()
        parts = [f"{self.description}: {self.done:,}/{self.total:,} {self.unit}"]
        if (seconds := now - self.started) >= SECONDS_MEASURED:
            rate = (self.done - self.initial) / seconds
            parts.append(f"{rate_text(rate)} {self.unit}/s")
            if rate > 0 and self.done < self.total:
                parts.append(f"{duration_text((self.total - self.done) / rate)} left")
        if self.postfix_text:
            parts.append(self.postfix_text)
        print(", ".join(parts), file=self.stream, flush=True)
        self.line_time, self.line_done = now, self.done


def rate_text(rate: float) -> str:
    """1234.5 -> "1,234", 0.012345 -> "0.0123"."""
    return f"{rate:,.0f}" if rate >= 999.5 else f"{rate:.3g}"


def duration_text(seconds: float) -> str:
    """12 -> "0:00:12"; whole seconds, hours not wrapped into days."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"
