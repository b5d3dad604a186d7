"""One clear error for all ranks: what fails on one of them ends all of them, and is said once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch.distributed as dist

from ifvit.config.errors import UserError
from ifvit.config.verbs import USER_ERROR_EXIT_CODE
from ifvit.runtime.distributed import Ranks

Result = TypeVar("Result")


@contextmanager
def agreed_errors(ranks: Ranks) -> Iterator[None]:
    """Runs its block on every rank; a UserError on any rank is raised on rank 0, and the others exit with code 2.

    The block must not use collective operations.
    """
    lines: tuple[str, ...] | None = None
    try:
        yield
    except UserError as error:
        lines = tuple(error.lines)
    everyones: list[Any] = [None] * ranks.world_size
    dist.all_gather_object(everyones, lines)
    if failed := [rank_lines for rank_lines in everyones if rank_lines is not None]:
        if ranks.rank == 0:
            raise UserError(*failed[0])
        raise SystemExit(USER_ERROR_EXIT_CODE)


def on_first_rank(ranks: Ranks, function: Callable[[], Result]) -> Result:
    """What `function` gives on rank 0, on every rank; its UserError ends all of them. The result must be small."""
    box: list[Any] = [None]
    with agreed_errors(ranks):
        if ranks.rank == 0:
            box[0] = function()
    dist.broadcast_object_list(box, src=0)
    return box[0]
