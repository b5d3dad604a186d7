"""Training runs in the ranks of a pool with trouble in their checkpoints, and what each rank says of it."""

import contextlib
import io
import resource
from typing import Any

from ifvit.checkpoint.saver import SaveError
from ifvit.runtime.distributed import Ranks
from tests.distributed.training_runs import train_run


def overheard_run(ranks: Ranks, **arguments: Any) -> tuple[int | str, str]:
    """What `train_run` returns, or the text of its SaveError, and this rank's standard error."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            outcome = train_run(ranks, **arguments)
    except SaveError as error:
        outcome = str(error)
    finally:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # the disk may have been left full
    return outcome, told.getvalue()
