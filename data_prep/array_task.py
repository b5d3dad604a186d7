"""Which share of the shards a process makes: one task of an array of jobs."""

import argparse
import os
from dataclasses import dataclass

from ifvit.config.errors import UserError

ID, COUNT, MIN, MAX, STEP = (f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "COUNT", "MIN", "MAX", "STEP"))


@dataclass(frozen=True)
class ArrayTask:
    """The units number, number + count, number + 2 count, ..."""

    number: int = 0
    count: int = 1

    def units(self, num_units: int) -> range:
        return range(self.number, num_units, self.count)


def add_task_arguments(parser: argparse.ArgumentParser) -> None:
    """--task and --num-tasks."""
    parser.add_argument("--task", type=int, metavar="I", help="make shards I, I + N, I + 2N, ... (default: all)")
    parser.add_argument(
        "--num-tasks", type=int, metavar="N", help="with --task; default for both: by the SLURM job array"
    )


def array_task(task: int | None, num_tasks: int | None) -> ArrayTask:
    """From the two options, else from a SLURM job array's variables, else all there is to do. Raises UserError."""
    if task is None and num_tasks is None:
        return slurm_task() if ID in os.environ else ArrayTask()
    if num_tasks is None or num_tasks < 1:
        raise UserError(f"--num-tasks: is {num_tasks}, must be at least 1 where --task is given")
    if task is None and num_tasks == 1:
        return ArrayTask()
    if task is None or not 0 <= task < num_tasks:
        raise UserError(f"--task: is {task}, must be from 0 to --num-tasks - 1 = {num_tasks - 1}")
    return ArrayTask(task, num_tasks)


def slurm_task() -> ArrayTask:
    """This task's share. Where the array's numbers have gaps only SLURM knows which they are: then all of the units, of
    which each task makes those that no other one is making.
    """
    try:
        number, count, first, last, step = (int(os.environ[name]) for name in (ID, COUNT, MIN, MAX, STEP))
        numbers = range(first, last + 1, step)
    except (KeyError, ValueError):
        raise UserError(
            f"{ID}: is set, but {COUNT}, {MIN}, {MAX} and {STEP} are no such numbers; give --task and --num-tasks"
        ) from None
    if len(numbers) == count and number in numbers:
        return ArrayTask(numbers.index(number), count)
    print(f"note: the array's {count} numbers have gaps: each task makes any shard that no other one makes", flush=True)
    return ArrayTask()
