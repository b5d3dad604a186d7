"""One clear error for all ranks: what fails on one of them ends all of them, and is said once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch.distributed as dist

from ifvit.config.errors import UserError
from ifvit.config.exit_codes import ExitCode
from ifvit.runtime.distributed import Ranks

Result = TypeVar("Result")
PATIENCE = timedelta(days=7)

_patient_groups: WeakKeyDictionary[dist.ProcessGroup, dist.ProcessGroup] = WeakKeyDictionary()  # by the default group


@contextmanager
def agreed_errors(ranks: Ranks, group: dist.ProcessGroup | None = None) -> Iterator[None]:
    """Runs its block on every rank; a UserError on any rank is raised on rank 0, and the others exit with USER_ERROR.

    The block must not use collective operations. `group`: all ranks, with another patience than the default group's.
    """
    lines: tuple[str, ...] | None = None
    try:
        yield
    except UserError as error:
        lines = tuple(error.lines)
    everyones = gathered(ranks, lines, group)
    if failed := [rank_lines for rank_lines in everyones if rank_lines is not None]:
        if ranks.rank == 0:
            raise UserError(*failed[0])
        raise SystemExit(ExitCode.USER_ERROR)


def gathered(ranks: Ranks, value: Result, group: dist.ProcessGroup | None = None) -> list[Result]:
    """Every rank's `value`, which must be small, in the order of the ranks."""
    if ranks.world_size == 1:
        return [value]  # also without a process group
    everyones: list[Any] = [None] * ranks.world_size
    dist.all_gather_object(everyones, value, group)
    return everyones


def patient_group() -> dist.ProcessGroup:
    """All ranks, for a wait that may take longer than runtime.watchdog_seconds. To be called by all.

    The same at each call, as long as the default group is: each one has threads and sockets of its own.
    """
    everyone = dist.group.WORLD
    assert everyone is not None, "no process group"
    if everyone not in _patient_groups:
        _patient_groups[everyone] = dist.new_group(backend="gloo", timeout=PATIENCE)
    return _patient_groups[everyone]


def on_first_rank(ranks: Ranks, function: Callable[[], Result]) -> Result:
    """What `function` gives on rank 0, on every rank; its UserError ends all of them. The result must be small."""
    box: list[Any] = [None]
    with agreed_errors(ranks):
        if ranks.rank == 0:
            box[0] = function()
    dist.broadcast_object_list(box, src=0)
    return box[0]
