"""What guards a training run from its start on, also while it loads: stop requests, heartbeats and the watchdog."""

import os
import socket
import statistics
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

from ifvit.config.schema import RuntimeConfig
from ifvit.runtime.beats import Beat
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.heartbeat_file import HeartbeatFile
from ifvit.runtime.late_ranks import LONG_PHASE_PATIENCE, LateRanks
from ifvit.runtime.run_directory import RunDirectory
from ifvit.runtime.stacks import main_thread_place
from ifvit.runtime.stop_requests import StopRequests
from ifvit.runtime.watchdog import Watchdog
from ifvit.training.phases import CHECKPOINT, END, FETCHING, METRICS, ROLLBACK, SAMPLING, START, Phases
from ifvit.training.state import AgreedError, LostRankError
from ifvit.training.stopping import StopHook


class Guards:
    """In force inside its `with` block, on all ranks. Raises LostRankError where another rank is to blame for an error.

    Attributes:
        phases: to be told where this process is.
    """

    def __init__(self, runtime: RuntimeConfig, ranks: Ranks) -> None:
        self.runtime = runtime
        self.ranks = ranks
        self.host = socket.gethostname()
        self.phases = Phases()
        self.requests = StopRequests(ranks.rank == 0, runtime.max_hours)
        self.stack = ExitStack()
        self.is_told = False

    def __enter__(self) -> "Guards":
        long_phases = (START, METRICS, CHECKPOINT, SAMPLING, ROLLBACK, END)
        late_ranks = LateRanks(self.ranks.world_size, self.runtime.watchdog_seconds, long_phases, (FETCHING,))
        self.watchdog = Watchdog(self.ranks, self.own_beat, late_ranks)
        seconds = LONG_PHASE_PATIENCE * self.runtime.watchdog_seconds
        verdict = f"rank {self.ranks.rank} is still there {seconds:g} s after its training ended"
        self.time_to_end = threading.Timer(seconds, self.watchdog.end_job, [verdict], {"is_own": True})
        self.time_to_end.daemon = True
        self.stack.callback(self.time_to_end.cancel)
        self.stack.enter_context(self.requests)
        self.watchdog.start()
        self.phases.enter(START, 0)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.stack:
            self.tell(error)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """The other ranks hear of an error in its block at once: leaving what is around the block may take long.

        Not of one that they all have: that is left under the watchdog, with the patience of a long phase.
        """
        try:
            yield
        except AgreedError:
            self.phases.enter(END, self.phases.position.step)
            raise
        except Exception as error:
            self.tell(error)
            raise

    def tell(self, error: BaseException | None) -> None:
        """Tell the other ranks, once, how training ended on this one; from then on only its time to end is limited.

        Raises LostRankError where another rank is to blame for `error`.
        """
        if self.is_told:
            return
        self.is_told = True
        self.time_to_end.start()
        failure = error if isinstance(error, Exception) and not isinstance(error, AgreedError) else None
        if lost := self.watchdog.stop(failure):
            raise LostRankError(lost) from error

    def use(self, directory: RunDirectory) -> None:
        """From now on heartbeats, and stacks if need be, are written to the run's logs."""
        rank = self.ranks.rank
        self.watchdog.stacks_file = directory.stacks_file(rank)
        heartbeat_file = HeartbeatFile(directory.heartbeat_file(rank), self.own_beat, self.watchdog.interval)
        heartbeat_file.start()
        self.stack.callback(heartbeat_file.stop)

    def own_beat(self, count: int) -> Beat:
        """Called from threads: it only reads."""
        position = self.phases.position
        steps = list(self.phases.step_seconds)
        return Beat(
            rank=self.ranks.rank,
            host=self.host,
            pid=os.getpid(),
            count=count,
            num_rollbacks=position.num_rollbacks,
            step=position.step,
            num_phases=position.num_phases,
            phase=position.phase,
            place=main_thread_place(),
            step_seconds=statistics.median(steps) if steps else None,
        )

    def stop_hook(self, max_steps: int) -> StopHook:
        """For the loop: first of the hooks, so that all others know in the same step."""
        return StopHook(self.ranks, self.requests, self.phases, max_steps)
