"""Whose a line is that waits for the GPU."""

from pathlib import Path

import ifvit
from ifvit.benchmark.host_syncs import our_lines


def test_an_environment_in_a_folder_called_ifvit_is_not_ours() -> None:
    ours = f"{Path(ifvit.__file__).parent}/training/loop.py:7"
    assert our_lines([ours, "/home/me/ifvit/.venv/lib/site-packages/deepspeed/runtime/engine.py:1"]) == [ours]
