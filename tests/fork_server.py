"""Processes forked from a server that has made the slow imports once.

A new interpreter takes longer to import torch and DeepSpeed than most commands and cases take to run. What such a
process does not show: what the imports print, other hash seeds (all have the server's), and the interpreter's own end.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np

PRELOADED = ["torch", "deepspeed", "transformers", "diffusers", "webdataset", "ifvit.commands.training_run"]


def fork_context() -> ForkServerContext:
    """The `multiprocessing` context whose processes start with PRELOADED imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def run_command(arguments: Sequence[str], cwd: Path, timeout_seconds: float) -> subprocess.CompletedProcess[str]:
    """`python -m ARGUMENTS` in `cwd`, in a process of its own. Raises TimeoutExpired, as `subprocess.run` does."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        for output in outputs:
            output.touch()
        process = fork_context().Process(target=become, args=(arguments, cwd, dict(os.environ), outputs))
        process.start()
        try:
            process.join(timeout_seconds)
        finally:
            if is_late := process.is_alive():
                process.kill()
                process.join()
        stdout, stderr = (output.read_text(errors="replace") for output in outputs)
    if is_late:
        raise subprocess.TimeoutExpired(list(arguments), timeout_seconds, stdout, stderr)
    assert process.exitcode is not None
    return subprocess.CompletedProcess(list(arguments), process.exitcode, stdout, stderr)


def become(arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], outputs: Sequence[Path]) -> None:
    """Make this process `python -m ARGUMENTS` with its standard output and standard error in files."""
    for number, output in enumerate(outputs, start=1):
        with output.open("wb") as file:
            os.dup2(file.fileno(), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = list(arguments)
    np.random.seed(int.from_bytes(os.urandom(4)))  # as a new interpreter has it, not the server's
    multiprocessing.set_start_method("fork", force=True)  # the default of a new interpreter
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # a process of multiprocessing leaves them out
