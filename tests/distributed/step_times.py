"""Runs whose steps are measured, inside the ranks of a pool."""

from typing import Any

from deepspeed.comm import comm

from ifvit.runtime.distributed import Ranks
from ifvit.training.communication import COLLECTIVES
from tests.distributed.training_runs import train_run


def timed_run(ranks: Ranks, **arguments: Any) -> tuple[int | str, list[str]]:
    """The exit code of `train_run`, and which of DeepSpeed's collectives are still timed afterwards."""
    code = train_run(ranks, **arguments)
    return code, [name for name in COLLECTIVES if name in vars(comm.cdb)]
