"""tests/fork_server.py: a forked command is what `python -m` is."""

import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from tests.fork_server import PRELOADED, fork_context, run_command

MODULE = """
import atexit, multiprocessing, os, sys
import numpy as np
atexit.register(print, "end")
print(sys.argv[1:], os.getcwd(), os.environ["HERE"], multiprocessing.get_start_method(allow_none=True) or "fork")
print(np.random.rand(), file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


def send_modules(connection: Connection) -> None:
    connection.send((set(sys.modules), sys.modules["ifvit"].__file__))


def test_the_server_has_made_the_imports_and_from_this_source_tree(repository: Path) -> None:
    ours, theirs = fork_context().Pipe()
    process = fork_context().Process(target=send_modules, args=(theirs,))
    process.start()
    modules, package = ours.recv()
    process.join()
    assert modules >= set(PRELOADED)
    assert Path(package).parents[1] == repository


def test_a_command_has_its_arguments_folder_environment_output_exit_code_and_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module.py").write_text(MODULE)
    monkeypatch.setenv("HERE", "yes")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    new = [sys.executable, "-m", "module", "7", "x"]
    expected = subprocess.run(new, cwd=tmp_path, capture_output=True, text=True)
    monkeypatch.syspath_prepend(tmp_path)
    forked = [run_command(["module", "7", "x"], tmp_path, 60) for _ in range(2)]
    assert [(done.stdout, done.returncode) for done in forked] == [(expected.stdout, 7)] * 2
    draws = {float(done.stderr) for done in (*forked, expected)}
    assert len(draws) == 3 and np.random.rand() not in draws


def test_one_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.py").write_text("import time; print('begun', flush=True); time.sleep(600)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(subprocess.TimeoutExpired) as late:
        run_command(["slow"], tmp_path, 5)
    assert late.value.output == "begun\n"
