"""Signs of life of the ranks: what each says of itself, and the place where the others read it.

They go through a key-value store of torch.distributed, the one that the ranks met at, over connections of their own:
neither a file system that stalls nor a collective operation that hangs can stop them.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

import torch.distributed as dist

from ifvit.runtime.agreement import gathered
from ifvit.runtime.distributed import Ranks

STORE_TIMEOUT = timedelta(seconds=5)


@dataclass(frozen=True)
class Beat:
    """What one rank says of itself."""

    rank: int
    host: str
    pid: int
    count: int  # grows with every beat
    num_rollbacks: int  # to an earlier step, since this start of the run
    step: int  # counted from 1: the step that is being made; 0 before the first one
    num_phases: int  # that began in this step
    phase: str
    place: str  # where its main thread is, FILE:LINE FUNCTION
    step_seconds: float | None  # the median; None before a step is done
    failure: str | None = None  # the error that ended it
    failure_order: int = 0  # counted from 1: which rank's failure came first
    has_left: bool = False  # it ended as it should

    @property
    def position(self) -> tuple[int, int, int]:
        """How far it has come; a larger one is further."""
        return self.num_rollbacks, self.step, self.num_phases

    @property
    def name(self) -> str:
        return f"rank {self.rank} on {self.host} (process {self.pid})"

    @property
    def where(self) -> str:
        return f"{self.phase} of step {self.step} ({self.place})" if self.step else f"{self.phase} ({self.place})"


class StoreError(Exception):
    """The store does not answer."""


class SharedBeats:
    """The newest beat of every rank, and one verdict. Made on all ranks together."""

    def __init__(self, ranks: Ranks, first_beat: Beat) -> None:
        self.ranks = ranks
        # Runs that follow each other in one process group, as in tests, have keys of their own.
        run = gathered(ranks, os.urandom(8).hex())[0]
        self.beat_keys = [f"ifvit/{run}/beat/{rank}" for rank in range(ranks.world_size)]
        self.verdict_key = f"ifvit/{run}/verdict"
        self.failures_key = f"ifvit/{run}/failures"
        self.store: dist.TCPStore | None = None
        self.put(first_beat)
        if ranks.rank == 0:
            self.put_verdict("")
        gathered(ranks, None)  # asking for a key that is not there would wait

    @property
    def address(self) -> str:
        return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"

    def put(self, beat: Beat) -> None:
        self.call("set", self.beat_keys[beat.rank], json.dumps(asdict(beat)))

    def of(self, ranks: Sequence[int]) -> list[Beat]:
        """The newest beats of `ranks`."""
        values = self.call("multi_get", [self.beat_keys[rank] for rank in ranks])
        return [Beat(**json.loads(value)) for value in values]  # type: ignore[attr-defined]

    def put_verdict(self, verdict: str) -> None:
        self.call("set", self.verdict_key, verdict)

    def verdict(self) -> str:
        """What ends all ranks; empty while nothing does."""
        value = self.call("get", self.verdict_key)
        assert isinstance(value, bytes)
        return value.decode()

    def next_failure(self) -> int:
        """1 for the first rank that asks."""
        number = self.call("add", self.failures_key, 1)
        assert isinstance(number, int)
        return number

    def call(self, method: str, *arguments: object) -> object:
        """Raises StoreError. What comes after an answer that was too late is asked on a new connection."""
        try:
            if self.store is None:
                host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
                self.store = dist.TCPStore(host, port, is_master=False, timeout=STORE_TIMEOUT, wait_for_workers=False)
            return getattr(self.store, method)(*arguments)
        except RuntimeError as error:  # what torch.distributed raises derives from it
            self.store = None
            raise StoreError(str(error)) from error
