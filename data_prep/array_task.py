"""Which share of the shards a process makes: one task of an array of jobs."""

import argparse
import os
from dataclasses import dataclass

from ifvit.config.errors import UserError

ID, COUNT, MIN, STEP = (f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "COUNT", "MIN", "STEP"))


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
    parser.add_argument("--num-tasks", type=int, metavar="N", help=f"with --task; default for both: {ID} and {COUNT}")


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
    try:
        id_, count, first = (int(os.environ[name]) for name in (ID, COUNT, MIN))
        number, rest = divmod(id_ - first, int(os.environ.get(STEP, "1")))
    except (KeyError, ValueError, ZeroDivisionError):
        raise UserError(f"{ID}: is set, but {COUNT} and {MIN} are no numbers; give --task and --num-tasks") from None
    if rest or not 0 <= number < count:
        raise UserError(
            f"{ID}: is {id_} in an array of {count} tasks from {first} on, which is not one of evenly spaced numbers; "
            "give --task and --num-tasks"
        )
    return ArrayTask(number, count)
