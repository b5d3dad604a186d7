"""Ctrl-C with several workers: exit code 130, one line, no process left, whenever it comes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.drawn_coco import draw_coco, tiny_values

DEADLINE_SECONDS = 120


def group_members(group: int) -> list[str]:
    """The processes of a group that have not ended."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                members.append(entry.name)
    return members


def has_imported_torch(process: str) -> bool:
    try:
        return "libtorch" in Path(f"/proc/{process}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_there(moment: str, group: int) -> bool:
    members = group_members(group)
    if moment == "importing":
        return any(map(has_imported_torch, members))  # diffusers and transformers come after it, for seconds
    return len(members) >= {"started": 1, "working": 5}[moment]


def listens_to_ctrl_c() -> None:
    """A shell starts what it runs in the background with the signal ignored, and all its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("moment", ["started", "importing", "working"])
def test_interrupted(tmp_path: Path, repository: Path, moment: str) -> None:
    values = tiny_values(draw_coco(tmp_path / "coco", num_images=200), tmp_path / "shards")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    log = tmp_path / "log"
    process = subprocess.Popen(
        [sys.executable, "-m", "data_prep", "shards", str(recipe), "--workers", "2"],
        cwd=repository,
        stdout=subprocess.DEVNULL,
        stderr=log.open("w"),
        start_new_session=True,
        preexec_fn=listens_to_ctrl_c,
    )
    deadline = time.monotonic() + DEADLINE_SECONDS
    listing = tmp_path / "shards/train/listing"
    while not (is_there(moment, process.pid) and listing.exists()):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(DEADLINE_SECONDS) == 130
    while group_members(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lines = [line for line in log.read_text().splitlines() if not line.startswith("shards")]  # but for progress
    assert lines == ["interrupted: what is finished stays, the same command goes on from there"]
