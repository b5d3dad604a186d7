"""A thread beside training that finds out which rank is late, and ends the job for it."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ifvit.config.exit_codes import ExitCode
from ifvit.runtime.beats import Beat, SharedBeats, StoreError
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.late_ranks import LateRanks
from ifvit.runtime.messenger import Messenger
from ifvit.runtime.stacks import write_stacks
from ifvit.runtime.standard_error import try_to_say

RANKS_PER_SECOND = 100  # with more ranks each beats more rarely
MAX_NAMED = 8  # late ranks
MAX_TEXT = 150  # characters of an error
INTERVALS_TO_BLAME = 8  # a rank that misses so many beats, while an operation with it has failed, is gone
BEATS_TO_BE_LATE = 8  # at the least, that a rank must miss


def beat_interval(world_size: int, watchdog_seconds: float) -> float:
    """Seconds between two beats of a rank: rank 0 reads all of them each time."""
    return min(max(1.0, world_size / RANKS_PER_SECOND), watchdog_seconds / BEATS_TO_BE_LATE)


class Watchdog:
    """From `start` to `stop`, on all ranks. Rank 0 listens to all of them, the others to rank 0.

    After the verdict every rank that can writes the stacks of its threads and ends with STOPPED, from this thread: the
    main thread hangs. Time in which the process itself was stopped (Ctrl-Z) does not count.

    Args:
        own_beat: makes this rank's beat, given its count.
        late_ranks: that has not heard of any rank.
    """

    def __init__(self, ranks: Ranks, own_beat: Callable[[int], Beat], late_ranks: LateRanks) -> None:
        self.ranks = ranks
        self.own_beat = own_beat
        self.late_ranks = late_ranks
        self.interval = beat_interval(ranks.world_size, late_ranks.watchdog_seconds)
        self.stacks_file: Path | None = None  # while it is not known they go to stderr
        self.num_heard = 0
        self.unanswered = 0.0  # seconds since the store last answered
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.watch, name="watchdog", daemon=True)
        self.messenger: Messenger | None = None
        if ranks.world_size > 1:
            heard = range(ranks.world_size) if ranks.rank == 0 else range(1)
            self.messenger = Messenger(SharedBeats(ranks, own_beat(0)), own_beat, heard, self.interval)

    def start(self) -> None:
        self.thread.start()
        if self.messenger is not None:
            self.messenger.start()

    def watch(self) -> None:
        last = time.monotonic()
        while not self.ending.wait(self.interval):
            now = time.monotonic()
            elapsed, last = min(now - last, 2 * self.interval), now
            if self.messenger is None:
                self.num_heard += 1
                self.late_ranks.hear([self.own_beat(self.num_heard)], elapsed)
            else:
                self.listen(self.messenger, elapsed)
            # A rank that waits for others is not late; of rank 0 the others know only whether it is lost.
            late = self.late_ranks.late() if self.ranks.rank == 0 else self.late_ranks.lost()
            if late:
                more = f"; and {len(late) - MAX_NAMED} more ranks" if len(late) > MAX_NAMED else ""
                self.end_job("; ".join(late[:MAX_NAMED]) + more, is_own=True)

    def listen(self, messenger: Messenger, elapsed: float) -> None:
        if messenger.num_answers == self.num_heard:
            self.unanswered += elapsed
            if self.unanswered >= self.late_ranks.watchdog_seconds:
                self.end_job(f"{no_answer(messenger.shared)} for {self.unanswered:.0f} s", is_own=True)
            return
        self.late_ranks.hear(messenger.beats, elapsed + self.unanswered)
        self.num_heard, self.unanswered = messenger.num_answers, 0.0
        if messenger.verdict:
            self.end_job(messenger.verdict, is_own=False)

    def end_job(self, verdict: str, is_own: bool) -> NoReturn:
        """This rank's own verdict is said on stderr; all write it over the stacks."""
        if is_own:
            if self.messenger is not None:
                self.messenger.own_verdict = verdict
            try_to_say(f"watchdog: {verdict}")
        write_stacks(self.stacks_file, verdict)
        if self.ranks.rank == 0 and self.messenger is not None:
            time.sleep(4 * self.interval)  # the others ask at this process
        os._exit(ExitCode.STOPPED)

    def stop(self, error: Exception | None) -> str:
        """Who is to blame for `error`, which ended this rank's training: another rank, or this one alone (empty).

        Takes some seconds where the error may come from a collective operation that has lost a rank.
        """
        self.ending.set()
        self.thread.join()
        if self.messenger is None:
            return ""
        if error is None:
            self.messenger.stop(has_left=True)
            return ""
        text = f"{type(error).__name__}: {error}".splitlines()[0][:MAX_TEXT]
        answer: list[str] = []
        asking = threading.Thread(target=lambda: answer.append(self.blame(text, error)), daemon=True)
        asking.start()
        asking.join(3 * INTERVALS_TO_BLAME * self.interval)
        blamed = answer[0] if answer else no_answer(self.messenger.shared)
        return f"{blamed} (this rank saw {text})" if blamed else ""

    def blame(self, text: str, error: Exception) -> str:
        """May hang with the store."""
        assert self.messenger is not None
        shared = self.messenger.shared
        everyone = LateRanks(self.ranks.world_size, self.late_ranks.watchdog_seconds, (), ())
        try:
            order = shared.next_failure()
            self.messenger.said = {"failure": text, "failure_order": order}
            if not isinstance(error, RuntimeError):  # as all of torch.distributed's are
                self.messenger.stop(**self.messenger.said)
                return ""
            for _ in range(INTERVALS_TO_BLAME + 1):
                everyone.hear(shared.of(range(self.ranks.world_size)), self.interval)
                time.sleep(self.interval)
        except StoreError:  # rank 0 is gone, or was the first to know and has ended
            if not everyone.beats:
                return "" if self.ranks.rank == 0 else no_answer(shared)
        silent = everyone.silent_for((INTERVALS_TO_BLAME - 2) * self.interval)
        return "; ".join(silent[:MAX_NAMED] or everyone.failed(before=order))


def no_answer(shared: SharedBeats) -> str:
    return f"rank 0, or the launcher on its machine, is gone or stopped: {shared.address} does not answer"
