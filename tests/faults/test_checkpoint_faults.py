"""F01, F05 to F08: what happens to files while a checkpoint is written, kept and read, and what is left."""

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ifvit.checkpoint.layout import MANIFEST, rank_file
from ifvit.checkpoint.load import newest_checkpoint
from ifvit.checkpoint.saver import SaveError
from ifvit.runtime.fault_injection import POINTS, VARIABLE
from tests.forked_process import exit_code, forked
from tests.saved_states import make_saver, progress_of, values_of

NUM_KILLS = 60
SHAPES = {"weight": (300, 100), "bias": (7,)}  # large enough for a kill between two of its bytes
TWO_RANKS = "train.micro_batch_size=4"


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


def killed_saver(checkpoints: Path, seconds: float | None) -> int:
    """The last step that a process acknowledged which is killed so long after its start, or kills itself; 0: none."""
    reading, writing = os.pipe()
    process = forked(lambda: save_for_ever(checkpoints, writing))
    os.close(writing)
    with os.fdopen(reading) as lines:
        assert lines.readline() == "ready\n"
        if seconds is not None:
            time.sleep(seconds)
            os.kill(process, signal.SIGKILL)
        acknowledged = [int(line) for line in lines]
    assert exit_code(process) == -signal.SIGKILL
    return acknowledged[-1] if acknowledged else 0


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
    reached = 0
    for _ in range(NUM_KILLS):
        reached = max(reached, killed_saver(tmp_path, moments.uniform(0, 0.1)))
        assert_newest_is_whole(tmp_path, reached)
    assert reached > NUM_KILLS, "too slow to show anything"
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


def fill_disk_from_step_2(checkpoints: Path) -> None:
    """No file may grow beyond 10 kB once step 1 is saved."""
    saver = make_saver(checkpoints, shapes=SHAPES, max_failed_saves=2)
    for step in range(1, 10):
        saver.start(progress_of(step), values_of(step, SHAPES))
        try:
            saver.wait()
        except SaveError as error:
            (checkpoints / "error").write_text(f"{step}: {error}")
            return
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))


@pytest.mark.fault(
    "F05",
    injected="no file may grow any more (RLIMIT_FSIZE), as on a disk that is full",
    detected="a line on stderr for each failed save, with the system's reason",
    recovered="the old checkpoint stays; after checkpoint.max_failed_saves in a row the run ends with exit code 1",
    lost="steps after the last save that worked",
)
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_code(forked(lambda: fill_disk_from_step_2(tmp_path))) == 0
    told = capfd.readouterr().err
    assert [f"step {step} FAILED" in told for step in (1, 2, 3, 4)] == [False, True, True, False]
    assert "File too large" in told
    error = (tmp_path / "error").read_text()
    assert error.startswith("3: 2 saves in a row failed") and "is the disk" in error
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["step-00000001"]
    assert_newest_is_whole(tmp_path, 1)


def flip_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)


def swap(one: Path, other: Path) -> None:
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


DAMAGES: dict[int, tuple[Callable[[Path], object], str]] = {
    7: (
        lambda folder: flip_byte(folder / rank_file(1, "weights")),
        "rank-00001.weights.safetensors has another sha256",
    ),
    6: (lambda folder: os.truncate(folder / rank_file(0, "exp_avg"), 1000), "rank-00000.exp_avg.safetensors has 1000"),
    5: (lambda folder: (folder / MANIFEST).unlink(), "manifest.json is missing"),
    4: (
        lambda folder: swap(folder / rank_file(0, "ema-0.9"), folder / rank_file(1, "ema-0.9")),
        "rank-0000[01].ema-0.9.safetensors has ",
    ),
    3: (lambda folder: flip_byte(folder / MANIFEST), "manifest.json cannot be read"),
}
