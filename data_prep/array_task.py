"""Which share of the shards a process makes: one task of an array of jobs."""

import argparse
import os
import re
from dataclasses import dataclass

from ifvit.config.errors import UserError, printable

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
    parser.add_argument("--task", type=int, metavar="I", help="only shards I, I + N, I + 2N, ... (default: all)")
    parser.add_argument(
        "--num-tasks", type=int, metavar="N", help="with --task; default for both: by the SLURM job array"
    )


def array_task(task: int | None, num_tasks: int | None) -> ArrayTask:
    """From the two options, else from a SLURM job array's variables, else all there is to do. Raises UserError."""
    if task is None and num_tasks is None:
        return slurm_task() if ID in os.environ else ArrayTask()
    if num_tasks is None:
        raise UserError("--num-tasks: is missing: it says of how many tasks --task is one")
    if num_tasks < 1:
        raise UserError(f"--num-tasks: is {num_tasks}, must be at least 1")
    if task is None and num_tasks == 1:
        return ArrayTask()
    if task is None:
        raise UserError("--task: is missing: it says which of the --num-tasks this is")
    if not 0 <= task < num_tasks:
        raise UserError(f"--task: is {task}, must be from 0 to --num-tasks - 1 = {num_tasks - 1}")
    return ArrayTask(task, num_tasks)


def slurm_task() -> ArrayTask:
    """This task's share. Where the array's numbers have gaps only SLURM knows which they are: then all of the units, of
    which each task makes those that no other one is making.
    """
    number, count, first, last, step = map(slurm_number, (ID, COUNT, MIN, MAX, STEP))
    numbers = range(first, last + 1, step)
    if len(numbers) == count and number in numbers:
        return ArrayTask(numbers.index(number), count)
    print(f"note: the array's {count} numbers have gaps: each task makes any shard that no other one makes", flush=True)
    return ArrayTask()


def slurm_number(name: str) -> int:
    """Raises UserError where SLURM would not have set the variable `name` so."""
    value, lowest = os.environ.get(name, ""), 1 if name in (COUNT, STEP) else 0
    if not re.fullmatch("[0-9]{1,9}", value) or int(value) < lowest:
        raise UserError(
            f"{name}: is '{printable(value[:20])}', must be a number from {lowest} in a job array; "
            "give --task and --num-tasks"
        )
    return int(value)
