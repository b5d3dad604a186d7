"""Runs whose steps are measured, inside the ranks of a pool."""

import os
from typing import Any

from deepspeed.comm import comm

from ifvit.runtime.distributed import Ranks
from ifvit.runtime.fault_injection import VARIABLE
from ifvit.training.communication import COLLECTIVES
from tests.distributed.training_runs import train_run


def train_with_faults(ranks: Ranks, faults: str, **arguments: Any) -> tuple[int | str, list[str]]:
    """The exit code of `train_run`, and which of DeepSpeed's collectives are still timed afterwards."""
    os.environ[VARIABLE] = faults
    try:
        code = train_run(ranks, **arguments)
    finally:
        del os.environ[VARIABLE]
    return code, [name for name in COLLECTIVES if name in vars(comm.cdb)]
