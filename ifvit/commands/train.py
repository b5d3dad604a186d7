"""Train a recipe. The run lives in {runtime.runs_root}/{name}; the same command goes on with it where it stopped.

One process, or several: torchrun --nproc-per-node 2 -m ifvit train RECIPE
A signal (Ctrl-C, TERM, USR1, USR2) to any rank saves at the next step, as does --set runtime.max_hours=H before H hours
are over; the same command then goes on. torchrun itself hands on Ctrl-C and TERM, ends its ranks 30 s later, and dies
of USR1 and USR2, which its ranks then do not hear.

Exit codes: 0 done; 75 interrupted and saved; 2 a mistake of yours, in one line; 3 ended with the reason: too many bad
steps in a row, a rank lost or stuck, replicas that differ; 1 our fault, or nothing can be saved; 130 ended at once by a
second Ctrl-C. torchrun turns them into its own.
"""

import argparse
import os
import sys

from ifvit.config.arguments import add_recipe_arguments, recipe_from
from ifvit.config.exit_codes import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    recipe = recipe_from(arguments)  # before the heavy imports: a typo must not wait for them
    from ifvit.runtime.standard_error import survive_unwritable_stderr
    from ifvit.runtime.tracking import set_mlflow_environment

    survive_unwritable_stderr()
    set_mlflow_environment()  # on every rank and before DeepSpeed, which imports mlflow
    from ifvit.checkpoint.saver import SaveError
    from ifvit.commands.training_run import run_training
    from ifvit.runtime.distributed import find_ranks, start_process_group, stop_process_group, training_device
    from ifvit.runtime.host_memory import keep_freed_memory
    from ifvit.runtime.late_ranks import COLLECTIVE_PATIENCE
    from ifvit.training.state import LostRankError, NonFiniteError, ReplicaError

    ranks = find_ranks()
    device = training_device(ranks)
    if device.type == "cpu":
        keep_freed_memory()
    start_process_group(ranks, device, COLLECTIVE_PATIENCE * recipe.runtime.watchdog_seconds)
    try:
        return run_training(recipe, ranks, device)
    except NonFiniteError as stop:
        if ranks.rank == 0:
            print(f"stopped: {stop}; the last checkpoint is from before", file=sys.stderr)
        return ExitCode.STOPPED
    except ReplicaError as stop:
        if ranks.rank == 0:
            print(f"stopped: {stop}", file=sys.stderr)
        return ExitCode.STOPPED
    except LostRankError as stop:
        print(f"rank {ranks.rank}: stopped: {stop}; the last checkpoint is from before", file=sys.stderr, flush=True)
        os._exit(ExitCode.STOPPED)  # leaving the process group could wait for the rank that is lost
    except SaveError as stop:
        if ranks.rank == 0:
            print(f"stopped: {stop}", file=sys.stderr)
        return ExitCode.FAILED
    finally:
        stop_process_group()
