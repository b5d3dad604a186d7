"""Work in a process of its own, forked from the test's: no imports, and it can be killed."""

import os
from collections.abc import Callable


def forked(work: Callable[[], object]) -> int:
    """The id of a process that does `work`; its exit code is 0 if that raises nothing."""
    if (process := os.fork()) == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return process


def exit_code(process: int) -> int:
    """Of a process that has ended, or does so soon."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
