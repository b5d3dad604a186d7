"""F01: a process that is killed while it saves leaves the newest checkpoint whole."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from ifvit.checkpoint.load import newest_checkpoint
from ifvit.runtime.fault_injection import POINTS, VARIABLE
from tests.forked_process import exit_code, forked
from tests.saved_states import make_saver, progress_of, values_of

NUM_KILLS = 60
SHAPES = {"weight": (300, 100), "bias": (7,)}  # large enough for a kill between two of its bytes


def newest_step(checkpoints: Path) -> int:
    checkpoint = newest_checkpoint(checkpoints)
    return 0 if checkpoint is None else checkpoint.manifest.step


def save_for_ever(checkpoints: Path, acknowledged: int) -> None:
    """Goes on where the newest checkpoint is, and writes each step that is saved to the pipe `acknowledged`."""
    torch.set_num_threads(1)
    saver = make_saver(checkpoints, shapes=SHAPES, keep_last=2)
    step = newest_step(checkpoints)
    os.write(acknowledged, b"ready\n")
    while True:
        step += 1
        saver.start(progress_of(step), values_of(step, SHAPES))
        saver.wait()
        assert saver.saved is not None
        os.write(acknowledged, f"{saver.saved.step}\n".encode())


def killed_saver(checkpoints: Path, moments: random.Random | None) -> int:
    """The last step that a process acknowledged which kills itself, or is killed at a moment of its second to fourth
    save that `moments` draw."""
    reading, writing = os.pipe()
    process = forked(lambda: save_for_ever(checkpoints, writing))
    os.close(writing)
    with os.fdopen(reading) as lines:
        assert lines.readline() == "ready\n"
        acknowledged = []
        if moments is not None:
            for _ in range(moments.randint(1, 3)):
                before = time.monotonic()
                acknowledged.append(int(lines.readline()))
            time.sleep(moments.uniform(0, time.monotonic() - before))
            os.kill(process, signal.SIGKILL)
        acknowledged += [int(line) for line in lines]
    assert exit_code(process) == -signal.SIGKILL
    return acknowledged[-1]


def assert_newest_is_whole(checkpoints: Path, acknowledged: int) -> None:
    newest = newest_checkpoint(checkpoints)
    if newest is None:
        assert acknowledged == 0
        return
    assert newest.manifest.step >= acknowledged
    for kind, (weight, bias) in values_of(newest.manifest.step, SHAPES).items():
        read = newest.read_all(kind)
        assert torch.equal(read["weight"].flatten(), weight) and torch.equal(read["bias"], bias)


@pytest.mark.fault(
    "F01",
    injected="SIGKILL at 60 random moments of saves, by a process that saves all the time and keeps two",
    detected="nothing has to be: no half of a checkpoint has a checkpoint's name",
    recovered="the newest checkpoint verifies and goes on each time",
    lost="no step that was acknowledged",
)
def test_a_kill_at_any_moment_loses_no_saved_step(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    moments = random.Random(seed)
    for _ in range(NUM_KILLS):
        reached = killed_saver(tmp_path, moments)
        assert_newest_is_whole(tmp_path, reached)
    assert reached >= NUM_KILLS
    assert "rejected" not in capfd.readouterr().err
    make_saver(tmp_path)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("checkpoint.")])
@pytest.mark.fault(
    "F01",
    injected="SIGKILL at each named point of a save: after the copy, a file, the manifest, the rename, while purging",
    detected="nothing has to be: no half of a checkpoint has a checkpoint's name",
    recovered="the newest checkpoint verifies and goes on each time",
    lost="no step that was acknowledged",
)
def test_a_kill_at_each_point_loses_no_saved_step(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, f"{point}:4=kill")
    assert killed_saver(tmp_path, None) == 3
    assert_newest_is_whole(tmp_path, 4 if point in ("checkpoint.renamed", "checkpoint.purge") else 3)
    assert "rejected" not in capfd.readouterr().err
