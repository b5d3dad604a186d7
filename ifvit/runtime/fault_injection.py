"""Named points at which a test makes something go wrong. Nothing happens unless the variable IFVIT_FAULTS is set.

    IFVIT_FAULTS="POINT[@RANK][:STEP[-STEP]]=ACTION[ NUMBER]; ..."

    checkpoint.file_written@1=kill          rank 1 dies there by SIGKILL
    step.backward@1:3=sleep 2               rank 1 sleeps two seconds in step 3
    step.gradient@1:3-5=nan                 rank 1's gradients of steps 3 to 5 become NaN

Steps count from 1. Of step.gradient and step.loss batches count: after a rollback others come in their place.
Actions at a point: kill, stop, term, usr1, usr2 (signals to this process), sleep SECONDS, eio, enospc (OSError), full
(from then on this process can write no file, as on a full disk; "File too large" is the reason), space (it can again).
Actions on a tensor: nan, inf, scale FACTOR, flip (the lowest bit of its first value).
"""

import errno
import os
import re
import resource
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

VARIABLE = "IFVIT_FAULTS"
POINTS = {
    "step.start": "before a run's data and encoders are loaded",
    "step.fetching": "before the wait for the first batch of fetched shards",
    "step.replica": "the first weight that a rank holds for training, after the update of a step",
    "step.end": "after all hooks, before the run is reported",
    "step.data": "before the batch of a step is asked for",
    "step.forward": "before a forward pass",
    "step.backward": "before a backward pass, whose end reduces gradients over the ranks",
    "step.gradient": "a tensor: what a backward pass starts from, so that all gradients of this rank are scaled alike",
    "step.loss": "a tensor: this rank's loss of a micro-batch, before its backward pass, which does not see the change",
    "step.optimizer": "before the optimiser step",
    "step.hooks": "before the hooks of a step, and between them",
    "step.metrics": "before the metrics hook, in the steps that it logs, and at the end",
    "step.checkpoint": "before the checkpoint hook, in the steps that are saved, and at the end",
    "step.sampling": "before the hook of sample grids, in the steps that get one, and at the end",
    "step.rollback": "before a rollback",
    "checkpoint.copied": "a rank has copied what it will write",
    "checkpoint.write": "before a rank writes a file of a checkpoint",
    "checkpoint.file_written": "a rank has written a file of a checkpoint",
    "checkpoint.before_manifest": "all ranks have written their files",
    "checkpoint.before_rename": "the manifest is on disk, the checkpoint has no name yet",
    "checkpoint.renamed": "the checkpoint exists, nobody was told yet",
    "checkpoint.purge": "a checkpoint that is no longer needed is about to be removed",
}
SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "term": signal.SIGTERM,
    "usr1": signal.SIGUSR1,
    "usr2": signal.SIGUSR2,
}
ERRORS = {"eio": errno.EIO, "enospc": errno.ENOSPC}
PATTERN = re.compile(r"([a-z_.]+)(?:@(\d+))?(?::(\d+)(?:-(\d+))?)?=([a-z0-9]+)(?: ([0-9.e+-]+))?")


@dataclass(frozen=True)
class Fault:
    """One entry of the variable."""

    point: str
    rank: int | None  # None: every rank
    first_step: int | None  # None: every step
    last_step: int | None
    action: str
    number: float | None

    def is_due(self, point: str, step: int | None) -> bool:
        if point != self.point or self.rank not in (None, int(os.environ.get("RANK", "0"))):
            return False
        if self.first_step is None or self.last_step is None:
            return True
        return step is not None and self.first_step <= step <= self.last_step


def fault_point(point: str, step: int | None = None) -> None:
    """What the variable says for `point`: the process is signalled, sleeps or has a full disk, or an OSError is raised.
    `step` counts from 1: the step that is being made."""
    for fault in due_faults(point, step):
        if fault.action in SIGNALS:
            os.kill(os.getpid(), SIGNALS[fault.action])
        elif fault.action == "sleep":
            time.sleep(fault.number or 0.0)
        elif fault.action in ("full", "space"):
            _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0 if fault.action == "full" else most, most))
        else:
            number = ERRORS[fault.action]
            raise OSError(number, f"{os.strerror(number)} (injected at {point})")


def fault_tensor(point: str, tensor: Any, step: int | None = None) -> None:
    """Change `tensor` (a float32 or bf16 torch tensor) in place as the variable says for `point`."""
    for fault in due_faults(point, step):
        if fault.action == "scale":
            tensor.mul_(fault.number)
        elif fault.action == "flip":
            import torch

            integers = tensor.view(-1)[:1].view(torch.int32 if tensor.element_size() == 4 else torch.int16)
            integers.bitwise_xor_(1)
        else:
            tensor.fill_(float(fault.action))


def due_faults(point: str, step: int | None) -> Iterator[Fault]:
    text = os.environ.get(VARIABLE)
    if text is None:
        return
    assert point in POINTS, f"{point} is not in POINTS"
    for fault in parsed(text):
        if fault.is_due(point, step):
            yield fault


def parsed(text: str) -> list[Fault]:
    faults = []
    for entry in filter(None, map(str.strip, text.split(";"))):
        match = PATTERN.fullmatch(entry)
        assert match is not None, f"{VARIABLE}: {entry} is not POINT[@RANK][:STEP[-STEP]]=ACTION[ NUMBER]"
        point, rank, first, last, action, number = match.groups()
        assert point in POINTS, f"{VARIABLE}: {point} is unknown, must be one of {', '.join(POINTS)}"
        faults.append(
            Fault(
                point,
                None if rank is None else int(rank),
                None if first is None else int(first),
                None if first is None else int(last or first),
                action,
                None if number is None else float(number),
            )
        )
    return faults
