"""What the exit code of a command says."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The codes of all commands; launchers know them. A process that a signal ends has `of_signal`."""

    DONE = 0
    FAILED = 1  # our fault, as of an exception that nobody caught; or a check failed
    USER_ERROR = 2
    STOPPED = 3  # with the reason: too many bad steps in a row, a rank is lost or stuck, replicas differ
    INTERRUPTED = 75  # saved; the same command goes on
    CTRL_C = 130  # of a job without a state to save: what is finished stays, the same command goes on
    UNREAD = 141  # nobody reads the output any more; as a shell has it of a program that SIGPIPE ended


def of_signal(number: int) -> int:
    """As a shell has it of a process that signal `number` ended."""
    return 128 + number
