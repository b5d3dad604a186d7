"""Training runs in the ranks of a pool that are watched for bad numbers, and what their logs then say."""

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ifvit.commands.run_report import RunReport
from ifvit.data.batch_stream import BatchStream
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.watchdog import Watchdog
from tests.distributed.training_runs import train_run


def order_of_ends(ranks: Ranks, **arguments: Any) -> list[str]:
    """Who hears first of the OSError that ends `train_run`: the other ranks, the batches, or the report to MLflow."""
    stop, close, leave = Watchdog.stop, BatchStream.__exit__, RunReport.__exit__
    order: list[str] = []

    def tell_ranks(watchdog: Watchdog, error: Exception | None) -> str:
        order.append("ranks")
        return stop(watchdog, error)

    def tell_batches(batches: BatchStream, *error: Any) -> None:
        order.append("batches")
        close(batches, *error)

    def tell_report(report: RunReport, *error: Any) -> None:
        order.append("report")
        leave(report, *error)

    Watchdog.stop = tell_ranks  # type: ignore[method-assign]
    BatchStream.__exit__, RunReport.__exit__ = tell_batches, tell_report  # type: ignore[method-assign]
    try:
        with contextlib.suppress(OSError):
            train_run(ranks, **arguments)
    finally:
        Watchdog.stop = stop  # type: ignore[method-assign]
        BatchStream.__exit__, RunReport.__exit__ = close, leave  # type: ignore[method-assign]
    return order


def count_reductions(ranks: Ranks, **arguments: Any) -> int:
    """How many all-reduces of fractions our own files start in `train_run`; DeepSpeed starts its own elsewhere.

    Ranks agree on signals and on saves by integers, the latter as often as a save happens to last.
    """
    original, count = dist.all_reduce, 0

    def all_reduce(tensor: torch.Tensor, *values: Any, **options: Any) -> Any:
        nonlocal count
        count += tensor.is_floating_point()
        return original(tensor, *values, **options)

    dist.all_reduce = all_reduce
    try:
        assert train_run(ranks, **arguments) == 0
    finally:
        dist.all_reduce = original
    return count


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file that may be missing."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
