"""The processes of one start: one worker here, or several beside it, whose progress is shown as one."""

from collections.abc import Sequence
from functools import partial

from data_prep.shard_job import ShardJob
from data_prep.worker_processes import Report, run_workers
from ifvit.runtime.progress import Progress

# Imported once, in the process that the workers are forked from.
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
            make_shards_of(job, 0, outcome.note)
        else:
            run_workers(partial(make_shards_of, job), num_workers, PRELOADED, outcome.note)
    finally:
        outcome.close()
    return outcome


def make_shards_of(job: ShardJob, number: int, report: Report) -> None:
    """What worker `number` does."""
    from data_prep.shard_units import ShardWorker

    ShardWorker(job, report, number).run()
