"""Counts where the host reads a tensor while a run trains: on a GPU each such place waits for all that was queued."""

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import ifvit
from ifvit.runtime.distributed import Ranks
from tests.distributed.training_runs import train_run

READING_OPERATIONS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select"}
READING_METHODS = (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu)
PACKAGE = str(Path(ifvit.__file__).parent)
TESTS = str(Path(__file__).parents[1])  # `train_run` records what is drawn
LOOP = f"{PACKAGE}/training/loop.py"


class Reads:
    """By "file:function" of whoever read: how often, in the steps `first` to `last` of a run."""

    def __init__(self, first: int, last: int) -> None:
        self.steps = range(first, last + 1)
        self.places: Counter[str] = Counter()

    def count(self) -> None:
        frames = list(callers(sys._getframe(2)))
        loop = next((frame for frame in frames if frame.f_code.co_filename == LOOP), None)
        if loop is None or loop.f_locals.get("number") not in self.steps:
            return
        reader = next(frame for frame in frames if is_counted(frame))
        if reader.f_code.co_filename.startswith(TESTS):
            return
        path = reader.f_code.co_filename.rpartition("/site-packages/")[2].removeprefix(f"{Path(PACKAGE).parent}/")
        self.places[f"{path}:{reader.f_code.co_name}"] += 1


def callers(frame: FrameType | None) -> Any:
    while frame is not None:
        yield frame
        frame = frame.f_back


def is_counted(frame: FrameType) -> bool:
    path = frame.f_code.co_filename
    return path.startswith(PACKAGE) or "/deepspeed/" in path or (path.startswith(TESTS) and path != __file__)


class CountedOperations(TorchDispatchMode):
    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in READING_OPERATIONS:
            self.reads.count()
        return func(*args, **(kwargs or {}))


class CountedMethods(TorchFunctionMode):
    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READING_METHODS:
            self.reads.count()
        return func(*args, **(kwargs or {}))


def counted_run(ranks: Ranks, shards_root: Path, runs_root: Path, overrides: list[str]) -> dict[str, int]:
    """Where tensors were read in steps 2 to 21 of a run of 22, and how often."""
    reads = Reads(2, 21)
    with CountedOperations(reads), CountedMethods(reads):
        steps = ["train.max_steps=22", "checkpoint.every_steps=100", "tracking.log_every_steps=100"]
        assert train_run(ranks, shards_root, runs_root, [*overrides, *steps], records_samples=False) == 0
    return dict(reads.places)
