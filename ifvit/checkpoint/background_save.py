"""The thread that turns what a host buffer holds into files, while training goes on."""

import threading
import time
import traceback
from enum import IntEnum
from pathlib import Path

from ifvit.checkpoint.commit import AbandonedError, Contents, commit
from ifvit.checkpoint.host_buffer import HostBuffer
from ifvit.checkpoint.manifest import Progress
from ifvit.checkpoint.retention import Retention
from ifvit.checkpoint.share_files import write_share
from ifvit.checkpoint.tensor_file import NonFiniteValuesError
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.standard_error import say


class Outcome(IntEnum):
    """Of one rank's part in a save; where the ranks' differ, the largest is that of all."""

    SAVED = 0
    FAILED = 1  # the disk's fault: may go better next time
    NON_FINITE = 2
    BROKEN = 3  # our fault


class BackgroundSave(threading.Thread):
    """One checkpoint, as far as this rank makes it. Uses no collective operations: training is using them.

    Attributes:
        outcome: once the thread has ended; on rank 0 SAVED means that the checkpoint exists.
        failure: what went wrong, else empty.
        doing: what is being done or waited for.
        is_abandoned: set it when another rank has failed.
        seconds: how long it took, once the thread has ended.
    """

    def __init__(
        self,
        unfinished: Path,
        contents: Contents,
        progress: Progress,
        buffer: HostBuffer,
        ranks: Ranks,
        retention: Retention,
    ) -> None:
        # A daemon: a process that ends for another reason must not wait for a rank that is gone.
        super().__init__(name=f"checkpoint of step {progress.step}", daemon=True)
        self.unfinished = unfinished
        self.contents = contents
        self.progress = progress
        self.buffer = buffer
        self.ranks = ranks
        self.retention = retention
        self.outcome = Outcome.SAVED
        self.failure = ""
        self.doing = ""
        self.is_abandoned = threading.Event()
        self.seconds = 0.0

    def run(self) -> None:
        started = time.perf_counter()
        self.save()
        if self.outcome == Outcome.SAVED and self.ranks.rank == 0:
            self.purge()
        self.seconds = time.perf_counter() - started

    def save(self) -> None:
        try:
            write_share(self.unfinished, self.buffer, self.ranks.rank, self.progress.step, self.tell)
            if self.ranks.rank == 0:
                commit(
                    self.unfinished, self.contents, self.progress, self.ranks.world_size, self.is_abandoned, self.tell
                )
        except AbandonedError:
            self.outcome = Outcome.FAILED
        except NonFiniteValuesError as error:
            self.outcome, self.failure = Outcome.NON_FINITE, str(error)
        except OSError as error:
            self.outcome, self.failure = Outcome.FAILED, str(error)
            say(f"the {self.name} FAILED on rank {self.ranks.rank} while {self.doing}: {error}")
        except Exception as error:  # nobody above this thread would hear of it
            self.outcome, self.failure = Outcome.BROKEN, repr(error)
            traceback.print_exc()

    def purge(self) -> None:
        self.tell("removing older checkpoints")
        try:
            self.retention.purge()
        except OSError as error:
            say(f"older checkpoints cannot be removed: {error}")

    def tell(self, doing: str) -> None:
        self.doing = doing
