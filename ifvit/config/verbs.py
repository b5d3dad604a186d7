"""One way to run a verb of a command line: import only its module, and turn mistakes into lines and exit codes.

A verb is a module with `add_arguments(parser)` and `run(arguments)`; its docstring is its help.
"""

import argparse
import importlib
import os
import select
import sys
from collections.abc import Mapping, Sequence

import ifvit
from ifvit.config.errors import UserError, printable
from ifvit.config.exit_codes import ExitCode


def run_verb(program: str, package: str, verbs: Mapping[str, str], argv: Sequence[str]) -> int:
    """Run the verb that `argv` begins with, the module of that name in `package`; `verbs` says what each one does.

    Returns what the verb's `run` gives (None is DONE), or USER_ERROR, CTRL_C, UNREAD.
    """
    # Before torch is loaded. Threads that wait spinning lose most of their speed as soon as another process is busy.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = called_verb(program, package, verbs, argv)
        sys.stdout.flush()
        return code
    except UserError as error:
        for line in error.lines:
            print(f"error: {printable(line)}", file=sys.stderr)
        return ExitCode.USER_ERROR
    except KeyboardInterrupt:
        print("interrupted: what is finished stays, the same command goes on from there", file=sys.stderr)
        return ExitCode.CTRL_C
    except BrokenPipeError:
        if stdout_is_read():
            raise
        return ExitCode.UNREAD


def called_verb(program: str, package: str, verbs: Mapping[str, str], argv: Sequence[str]) -> int:
    verb = argv[0] if argv else "--help"
    if verb in ("-h", "--help"):
        print(f"usage: {program} VERB ...   ({program} VERB --help explains one)\n")
        print("\n".join(f"  {name:16}{text}" for name, text in verbs.items()))
        return ExitCode.DONE
    if verb == "--version":
        print(ifvit.__version__)
        return ExitCode.DONE
    if verb not in verbs:
        raise UserError(f"{verb}: unknown verb, must be one of {', '.join(verbs)}")
    module = importlib.import_module(f"{package}.{verb.replace('-', '_')}")
    parser = argparse.ArgumentParser(
        prog=f"{program} {verb}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    try:
        arguments = parser.parse_args(argv[1:])
    except SystemExit as ended:  # after --help, or a mistake that argparse has told
        assert isinstance(ended.code, int)
        return ended.code
    return int(module.run(arguments) or ExitCode.DONE)


def stdout_is_read() -> bool:
    """Whether somebody still reads what is printed. Nobody does where `| head` has ended: what is left is dropped."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return False
