"""The processes of one start: one worker here, or several beside it, whose progress is shown as one."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any

from data_prep.shard_job import ShardJob
from ifvit.config.errors import UserError
from ifvit.runtime.progress import Progress

# Imported once, in a process that does nothing else; from it the workers are forked.
PRELOADED = [
    "data_prep.shard_units",
    "diffusers.models.autoencoders.autoencoder_kl",
    "transformers.models.clip.modeling_clip",
]


class Outcome:
    """What the workers of one start have done, shown as it grows."""

    def __init__(self, job: ShardJob, units_there: Sequence[int]) -> None:
        self.num_made = 0
        self.is_complete = False  # the shards of all tasks, and the index
        self.total, self.done = (sum(map(job.listing.shard_samples, units)) for units in (job.units, units_there))
        self.progress: Progress | None = None

    def note(self, kind: str, count: int) -> None:
        if self.progress is None:  # the first worker has loaded the encoders: from now on time counts
            self.progress = Progress(self.total, "shards", unit="images", initial=self.done)
        if kind == "encoded":
            self.progress.advance(count)
        elif kind == "made":
            self.num_made += count
        elif kind == "complete":
            self.is_complete = True

    def close(self) -> None:
        if self.progress is not None:
            self.progress.close()


def make_missing_shards(job: ShardJob, num_workers: int) -> Outcome:
    """Raises UserError for the first mistake that a worker meets; the others are ended then, losing what is partial."""
    there = job.units_there()
    outcome = Outcome(job, there)
    num_workers = min(num_workers, max(1, len(job.units) - len(there)))
    try:
        if num_workers == 1:
            from data_prep.shard_units import ShardWorker

            ShardWorker(job, outcome.note).run()
        else:
            run_workers(job, num_workers, outcome)
    finally:
        outcome.close()
    return outcome


def run_workers(job: ShardJob, num_workers: int, outcome: Outcome) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    workers: dict[Connection, ForkServerProcess] = {}
    try:
        for number in range(num_workers):
            receiver, sender = context.Pipe(duplex=False)
            workers[receiver] = context.Process(target=work, args=(job, number, sender), daemon=True)
            workers[receiver].start()
            sender.close()
        follow(workers, outcome.note)
    finally:
        for process in workers.values():
            process.terminate()
            process.join()


def work(job: ShardJob, number: int, sender: Connection) -> None:
    """The main function of a worker's process."""
    from data_prep.shard_units import ShardWorker

    def report(kind: str, value: Any) -> None:
        try:
            sender.send((kind, value))
        except OSError:
            raise SystemExit(1) from None  # the process that started this one is gone

    try:
        ShardWorker(job, report, number).run()
        report("ended", None)
    except UserError as error:
        report("error", list(error.lines))
    except KeyboardInterrupt:
        raise SystemExit(1) from None


def follow(workers: dict[Connection, ForkServerProcess], note: Callable[[str, int], None]) -> None:
    """Hears the workers until all have ended."""
    lost = []
    open_ones = dict(workers)
    ended = set()
    while open_ones:
        for receiver in wait(list(open_ones)):
            assert isinstance(receiver, Connection)
            try:
                kind, value = receiver.recv()
            except (EOFError, OSError):  # its process has ended, perhaps in the middle of a message
                process = open_ones.pop(receiver)
                process.join()
                if receiver not in ended:
                    lost.append(process.exitcode or 0)
                continue
            if kind == "error":
                raise UserError(*value)
            if kind == "ended":
                ended.add(receiver)
            else:
                note(kind, value)
    if killed := [code for code in lost if code < 0]:
        raise UserError(
            f"--workers: {len(killed)} of {len(workers)} workers were ended by {signal.Signals(-killed[0]).name}; "
            "was there enough memory? The same command goes on from here, perhaps with fewer workers"
        )
    if lost:
        raise RuntimeError(f"{len(lost)} of {len(workers)} workers failed; their errors stand above")
