"""Saves checkpoints beside training: one at a time, its outcome known to all ranks at the same step."""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from ifvit.checkpoint.background_save import BackgroundSave, Outcome
from ifvit.checkpoint.commit import Contents
from ifvit.checkpoint.host_buffer import HostBuffer
from ifvit.checkpoint.layout import unfinished_folder
from ifvit.checkpoint.manifest import Progress
from ifvit.checkpoint.retention import Retention, clear_leftovers
from ifvit.config.schema import CheckpointConfig
from ifvit.runtime.agreement import gathered
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.fault_injection import fault_point
from ifvit.training.state import AgreedError, NonFiniteError

WAIT_SECONDS = 0.01


class SaveError(AgreedError):
    """The run cannot be saved, so training further would be for nothing."""


class CheckpointSaver:
    """Copies the state, has it written, and says when that is done. All methods are collective.

    Attributes:
        saved: the newest checkpoint that is on disk, as all ranks know.
        save_seconds: how long this rank took for the last save that has ended.
    """

    def __init__(
        self,
        checkpoints: Path,
        config: CheckpointConfig,
        contents: Contents,
        buffer: HostBuffer,
        ranks: Ranks,
        patience_seconds: float,
    ) -> None:
        self.checkpoints = checkpoints
        self.config = config
        self.contents = contents
        self.buffer = buffer
        self.ranks = ranks
        self.patience_seconds = patience_seconds
        self.retention = Retention(checkpoints, config.keep_last, config.milestone_every_steps)
        self.current: BackgroundSave | None = None
        self.num_started = 0
        self.num_failed = 0  # in a row
        self.failure = ""  # of the last save that failed
        self.saved: Progress | None = None
        self.save_seconds = 0.0

    def prepare(self) -> None:
        """Remove what killed processes left. To be called before the first save."""
        if self.ranks.rank == 0:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            clear_leftovers(self.checkpoints)
        if self.ranks.world_size > 1:
            dist.barrier()

    def start(self, progress: Progress, values: Mapping[str, Sequence[Tensor]]) -> None:
        """Save `values`, by kind one (numel,) float32 tensor per fragment, once the save before is done.

        Returns when they are copied, or with `checkpoint.asynchronous: false` when they are saved or that has failed.
        Raises as `poll` does, and SaveError when the save before does not end.
        """
        self.wait()
        self.buffer.copy(values)
        fault_point("checkpoint.copied", progress.step)
        self.num_started += 1
        folder = unfinished_folder(self.checkpoints, progress.step, self.num_started)
        self.current = BackgroundSave(folder, self.contents, progress, self.buffer, self.ranks, self.retention)
        self.current.start()
        if not self.config.asynchronous:
            self.wait()

    def wait(self) -> None:
        """Return when no save is in flight. Raises as `poll` does, and SaveError after `patience_seconds`."""
        deadline = time.monotonic() + self.patience_seconds
        while self.current is not None:
            self.poll(is_late=time.monotonic() > deadline)
            time.sleep(WAIT_SECONDS)

    def poll(self, is_late: bool = False) -> None:
        """Learn whether the save in flight, if any, has ended on all ranks, and how; costs nothing if there is none.

        Raises NonFiniteError where values were NaN or infinite, and SaveError after `checkpoint.max_failed_saves` that
        failed in a row, or where a rank `is_late`.
        """
        if self.current is None:
            return
        is_running = self.current.is_alive()
        outcome = Outcome.SAVED if is_running else self.current.outcome
        news = torch.tensor([int(is_running), int(outcome), int(is_late)])
        if self.ranks.world_size > 1:
            dist.all_reduce(news, dist.ReduceOp.MAX)  # on the CPU, beside the device's own queue
        any_running, worst, any_late = news.tolist()
        if worst != Outcome.SAVED:
            self.current.is_abandoned.set()
        if any_running and any_late:
            late = f"not done after {self.patience_seconds:g} s (runtime.watchdog_seconds gives more)"
            raise SaveError(f"{self.current.name}: {late}: {self.what_is_missing()}")
        if not any_running:
            ended, self.current = self.current, None
            self.conclude(ended, Outcome(worst))

    def conclude(self, ended: BackgroundSave, outcome: Outcome) -> None:
        self.save_seconds = ended.seconds
        if outcome == Outcome.SAVED:
            self.saved, self.num_failed = ended.progress, 0
            return
        if self.ranks.rank == 0:
            shutil.rmtree(ended.unfinished, ignore_errors=True)  # what is left of it fills a disk that may be full
        if outcome == Outcome.NON_FINITE:
            raise NonFiniteError(
                f"weights, moments or averages are not finite at step {ended.progress.step}, which is not saved"
            )
        self.num_failed += 1
        failures = gathered(self.ranks, ended.failure)
        self.failure = "; ".join(f"rank {rank}: {failure}" for rank, failure in enumerate(failures) if failure)
        if outcome == Outcome.BROKEN:
            raise SaveError(f"{ended.name}: {self.failure}")
        if self.num_failed >= self.config.max_failed_saves:
            raise self.error(f"{self.num_failed} saves in a row failed, the last at step {ended.progress.step}")

    def error(self, what: str) -> SaveError:
        newest = f"step {self.saved.step}" if self.saved else "from before this start, if there is one"
        return SaveError(
            f"{what}: {self.failure}; is the disk of {self.checkpoints} full or broken? The newest checkpoint is "
            f"{newest}"
        )

    def what_is_missing(self) -> str:
        assert self.current is not None
        doing = gathered(self.ranks, self.current.doing if self.current.is_alive() else "")
        return "; ".join(f"rank {rank} is {action}" for rank, action in enumerate(doing) if action)
