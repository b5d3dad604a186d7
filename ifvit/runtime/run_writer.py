"""Appends to the logs in a run's folder; nothing of them is lost where the disk is full for a while."""

import json
import math
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifvit.runtime.files import append_line
from ifvit.runtime.outage import Outage
from ifvit.runtime.standard_error import say

MAX_WAITING = 10_000  # lines; one of metrics has about 1 kB


class RunWriter:
    """Lines that the disk refuses wait in memory, in order, and are tried again with every later one, of whichever
    file. For rank 0 only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waiting: deque[tuple[Path, bytes]] = deque()
        self.num_dropped = 0
        self.outage = Outage(f"{folder}: metrics and logs", f"up to {MAX_WAITING:,} of their lines wait in memory")

    def append(self, path: Path, record: Mapping[str, Any]) -> None:
        """Write `record` as one more line of `path`: it is there when this returns, unless there is an outage. JSON
        has no NaN and no infinity: they become null."""
        text = json.dumps(without_non_finite(record), ensure_ascii=False, allow_nan=False)
        self.append_line(path, f"{text}\n".encode())

    def append_line(self, path: Path, line: bytes) -> None:
        """As `append`; `line` ends with a line feed."""
        self.waiting.append((path, line))
        self.flush()
        if len(self.waiting) > MAX_WAITING:
            self.waiting.popleft()
            self.num_dropped += 1

    def flush(self) -> None:
        with self.outage.survived():
            while self.waiting:
                append_line(*self.waiting[0])
                self.waiting.popleft()

    def lines(self, path: Path) -> list[bytes]:
        """All whole lines of `path`, those that wait included."""
        written = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        return [line for line in written if line.endswith(b"\n")] + [line for at, line in self.waiting if at == path]

    def take_waiting(self, path: Path) -> list[bytes]:
        """The lines of `path` that wait; they do so no longer."""
        taken = [line for at, line in self.waiting if at == path]
        self.waiting = deque((at, line) for at, line in self.waiting if at != path)
        return taken

    def close(self) -> None:
        """The last attempt. Says on stderr what is lost."""
        self.flush()
        waiting = Counter(path.name for path, _ in self.waiting)
        lost = [f"{count} of {name}" for name, count in waiting.items()]
        if self.num_dropped:
            lost.append(f"{self.num_dropped} for which memory had no place")
        if lost:
            say(f"{self.folder}: lines that are lost: {', '.join(lost)}")


def without_non_finite(value: Any) -> Any:
    """`value`, made of what JSON has, with None for each number in it that is not finite."""
    if isinstance(value, Mapping):
        return {key: without_non_finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_non_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
