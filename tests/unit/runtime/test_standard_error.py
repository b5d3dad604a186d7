"""A log of standard error on a full disk, and a reader that does not keep up."""

import io
import os
import subprocess
import sys
from pathlib import Path

from ifvit.runtime.standard_error import LossyFile
from tests.full_pipe import full_pipe

PROGRAM = """
import sys
from ifvit.runtime.standard_error import survive_unwritable_stderr
from tests.full_disk import full_disk

survive_unwritable_stderr()
print("before", file=sys.stderr)
with full_disk(9):
    print("meanwhile", file=sys.stderr, flush=True)
print("after", file=sys.stderr)
disk = full_disk(9)
disk.__enter__()  # to the end of the process
print("at the end", file=sys.stderr)
sys.exit(75)
"""


def test_what_cannot_be_said_is_lost_and_the_exit_code_is_not(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        assert subprocess.run([sys.executable, "-c", PROGRAM], stderr=log, timeout=60).returncode == 75
    assert (tmp_path / "log").read_text() == "before\nmeafter\n"


def test_what_a_full_pipe_has_no_place_for_is_lost() -> None:
    with full_pipe() as writer:
        os.set_blocking(writer, False)
        file = io.BufferedWriter(LossyFile(writer, "wb", closefd=False))
        file.write(b"lost")
        file.flush()
