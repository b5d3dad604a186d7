"""Processes that work on one job beside this one: heard as one, and never left over, whatever ends this one.

A process in between imports what is slow, once, and the workers are forked from it. Each process asks the kernel to be
killed with the one that started it, also while it is importing.
"""

import ctypes
import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from ifvit.config.errors import UserError

PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>

Report = Callable[[str, int], object]
Work = Callable[[int, Report], object]


def run_workers(work: Work, num_workers: int, preloaded: Sequence[str], note: Report) -> None:
    """Calls `work(number, report)` in `num_workers` processes; `note` hears here what any of them reports.

    `work` is importable by its name, or a partial of such a function. Raises UserError for the first that a worker
    raises, or where workers were killed; whatever is raised, all workers are ended before.
    """
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(num_workers + 1)]
    receivers, senders = [receiver for receiver, _ in pipes], [sender for _, sender in pipes]
    origin = context.Process(target=start_workers, args=(work, senders, list(preloaded)))
    try:
        with interrupts_held_back():
            origin.start()
        for sender in senders:
            sender.close()
        codes = follow(receivers, note)
        origin.join()
    finally:
        if origin.pid is not None:
            origin.terminate()
            origin.join()
    check_exit_codes(codes if codes is not None else [origin.exitcode or 1], num_workers)


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Hold Ctrl-C back for a moment. A process that is started meanwhile never gets it: its parent ends it."""
    resource_tracker.ensure_running()  # `start` would do so, and let Ctrl-C through again after it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_workers(work: Work, senders: Sequence[Connection], preloaded: Sequence[str]) -> None:
    """The process in between: imports, starts the workers, and tells their exit codes when all have ended."""
    end_with_parent()
    for name in preloaded:
        importlib.import_module(name)
    context = multiprocessing.get_context("fork")  # nothing has been computed here, so no other thread holds a lock
    workers = [
        context.Process(target=run_worker, args=(work, number, sender), daemon=True)
        for number, sender in enumerate(senders[:-1])
    ]
    for worker in workers:
        worker.start()
    for sender in senders[:-1]:
        sender.close()
    for worker in workers:
        worker.join()
    senders[-1].send(("exit codes", [worker.exitcode for worker in workers]))


def end_with_parent() -> None:
    """Let the kernel kill this process as soon as its parent has ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    assert parent is not None
    if os.getppid() != parent.pid:  # it had ended before
        os._exit(1)


def run_worker(work: Work, number: int, sender: Connection) -> None:
    """The main function of a worker."""
    end_with_parent()

    def report(kind: str, value: Any) -> None:
        try:
            sender.send((kind, value))
        except OSError:
            raise SystemExit(1) from None  # whoever heard it is gone, and this process about to be killed

    try:
        work(number, report)
    except UserError as error:
        report("error", list(error.lines))


def follow(receivers: Sequence[Connection], note: Report) -> list[int] | None:
    """Hears the workers until all have ended. Returns their exit codes; None where the process in between told none.

    Raises UserError for the first that a worker tells.
    """
    codes: list[int] | None = None
    open_ones = list(receivers)
    while open_ones:
        for receiver in wait(open_ones):
            assert isinstance(receiver, Connection)
            try:
                kind, value = receiver.recv()
            except (EOFError, OSError):  # its process has ended, perhaps in the middle of a message
                open_ones.remove(receiver)
                continue
            if kind == "error":
                raise UserError(*value)
            if kind == "exit codes":
                codes = value
            else:
                note(kind, value)
    return codes


def check_exit_codes(codes: Sequence[int], num_workers: int) -> None:
    """Raises UserError where workers were killed, RuntimeError where they failed."""
    if killed := [code for code in codes if code < 0]:
        raise UserError(
            f"--workers: {len(killed)} of {num_workers} workers were ended by {signal.Signals(-killed[0]).name}; "
            "was there enough memory? The same command goes on from here, perhaps with fewer workers"
        )
    if failed := [code for code in codes if code]:
        raise RuntimeError(f"{len(failed)} of {num_workers} workers failed; their errors stand above")
