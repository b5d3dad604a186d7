"""What is wrong with a folder of shards: every fault counted, the first ones kept."""

from collections.abc import Iterable
from dataclasses import dataclass

MAX_KEPT = 1000  # faults that are told in full
MAX_KEPT_OF_SHARD = 20


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    file: str  # its path below the folder
    what: str
    shard: int | None = None  # the shard that must be made again; None: another file
    is_foreign: bool = False  # a file that is none of the set's: nothing that could be made again

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


class FaultList:
    """All faults are counted and noted by file and shard; at most `max_kept` are kept as they are."""

    def __init__(self, max_kept: int = MAX_KEPT) -> None:
        self.max_kept = max_kept
        self.kept: list[Fault] = []
        self.count = 0
        self.reasons: dict[str, str] = {}  # by file: what was found first
        self.shards: set[int] = set()
        self.foreign: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self.count += 1
        if len(self.kept) < self.max_kept:
            self.kept.append(fault)
        if fault.is_foreign:
            self.foreign.append(fault)
            return
        self.reasons.setdefault(fault.file, fault.what)
        if fault.shard is not None:
            self.shards.add(fault.shard)

    def merge(self, other: "FaultList") -> None:
        """Add what `other` has."""
        self.count += other.count - len(other.kept)
        for fault in other.kept:
            self.add(fault)
        for file, what in other.reasons.items():
            self.reasons.setdefault(file, what)

    def __bool__(self) -> bool:
        return self.count > 0


def capped(lines: Iterable[str], max_lines: int, total: int) -> list[str]:
    """The first of `lines`, and where `total` is more, how many more there are."""
    shown = [line for line, _ in zip(lines, range(max_lines), strict=False)]
    return [*shown, f"and {total - len(shown):,} more"] if total > len(shown) else shown
