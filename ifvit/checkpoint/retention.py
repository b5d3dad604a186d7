"""Which checkpoints are removed, and when: none before enough newer ones were read back and found intact."""

import shutil
from pathlib import Path

from ifvit.checkpoint.layout import REMOVED, UNFINISHED, removed_folder, saved_steps, step_folder
from ifvit.checkpoint.manifest import DamagedCheckpointError
from ifvit.checkpoint.verification import verify
from ifvit.runtime.fault_injection import fault_point
from ifvit.runtime.standard_error import say

Signature = tuple[tuple[str, int, int, int], ...]


class Retention:
    """Keeps the newest `keep_last` intact checkpoints, and all of steps that `milestone_every_steps` divides.

    A checkpoint counts once it has verified here, for as long as its files' sizes and times stay as they were. One that
    was saved among skipped steps, as an interrupted run is, does not count: a rollback does not go there.
    """

    def __init__(self, checkpoints: Path, keep_last: int, milestone_every_steps: int | None) -> None:
        self.checkpoints = checkpoints
        self.keep_last = keep_last
        self.milestone_every_steps = milestone_every_steps
        self.verified: dict[int, Signature] = {}  # of those that count

    def purge(self) -> None:
        """Remove what is older than all that must be kept. Says on stderr what it finds damaged. Raises OSError."""
        steps = saved_steps(self.checkpoints)
        if not any(not self.is_milestone(step) for step in steps[: -self.keep_last]):
            return
        num_kept = 0
        for step in reversed(steps):
            if num_kept < self.keep_last:
                num_kept += self.counts(step)
            elif not self.is_milestone(step):
                fault_point("checkpoint.purge", steps[-1])
                remove(step_folder(self.checkpoints, step))

    def is_milestone(self, step: int) -> bool:
        return self.milestone_every_steps is not None and step % self.milestone_every_steps == 0

    def counts(self, step: int) -> bool:
        folder = step_folder(self.checkpoints, step)
        found = signature(folder)
        if self.verified.get(step) == found:
            return True
        try:
            manifest = verify(folder)
        except DamagedCheckpointError as damage:
            say(f"checkpoint {folder} does not count as kept: {damage}")
            return False
        if manifest.progress.bad_steps.in_a_row > 0:
            return False
        self.verified[step] = found
        return True


def signature(folder: Path) -> Signature:
    """Changes whenever somebody writes to a file in `folder`."""
    files = ((path.name, path.stat()) for path in sorted(folder.iterdir()))
    return tuple((name, status.st_size, status.st_mtime_ns, status.st_ino) for name, status in files)


def remove(folder: Path) -> None:
    """Under another name, so that a killed process leaves no half of a checkpoint behind."""
    removed = removed_folder(folder)
    if removed.exists():
        shutil.rmtree(removed)
    folder.rename(removed)
    shutil.rmtree(removed)


def remove_after(checkpoints: Path, step: int) -> None:
    """Remove the checkpoints of later steps: a run that goes on from `step` in another way must not resume there."""
    for later in saved_steps(checkpoints):
        if later > step:
            remove(step_folder(checkpoints, later))


def clear_leftovers(checkpoints: Path) -> None:
    """Remove what killed processes left of checkpoints that were being written or removed. Nobody may be saving."""
    for leftover in (*checkpoints.glob(f"{UNFINISHED}*"), *checkpoints.glob(f"{REMOVED}*")):
        shutil.rmtree(leftover, ignore_errors=True)
