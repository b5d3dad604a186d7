"""F06 and F07: checkpoints that were damaged."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ifvit.checkpoint import retention
from ifvit.checkpoint.layout import MANIFEST, rank_file, saved_steps, step_folder
from tests.distributed.training_runs import assert_bit_equal
from tests.saved_states import intact_steps, make_saver, save
from tests.training_fixtures import Overheard


def flip_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def swap(one: Path, other: Path) -> None:
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


DAMAGES: dict[int, tuple[Callable[[Path], object], str]] = {
    7: (
        lambda folder: flip_byte(folder / rank_file(1, "weights")),
        "rank-00001.weights.safetensors has another",
    ),
    6: (lambda folder: os.truncate(folder / rank_file(0, "exp_avg"), 999), "rank-00000.exp_avg.safetensors has 999 by"),
    5: (lambda folder: (folder / MANIFEST).unlink(), "manifest.json is missing"),
    4: (
        lambda folder: swap(folder / rank_file(0, "weights"), folder / rank_file(1, "weights")),
        "rank-00000.weights.safetensors has ",
    ),
    3: (lambda folder: flip_byte(folder / MANIFEST), "manifest.json cannot be read: its content_sha256 differs"),
}


@pytest.mark.fault(
    "F06",
    injected="checkpoints with a bit flipped, cut, without manifest, with the ranks' files swapped, manifest flipped",
    detected="each is rejected on stderr, by the file's name",
    recovered="from the newest one that verifies, exactly; where none does the run ends with exit code 2",
    lost="the steps since",
)
def test_damaged_checkpoints_are_passed_over_by_name(
    overheard: Overheard, undisturbed_pair: Path, tmp_path: Path
) -> None:
    saved = ["checkpoint.every_steps=1", "checkpoint.keep_last=9"]
    assert [code for code, _ in overheard(2, tmp_path, *saved, "train.max_steps=7")] == [0, 0]
    checkpoints = tmp_path / "tiny/checkpoints"
    for step, (damage, _) in DAMAGES.items():
        damage(step_folder(checkpoints, step))
    outcomes = overheard(2, tmp_path, *saved, "checkpoint.keep_last=1")
    assert [code for code, _ in outcomes] == [0, 0]
    for step, (_, problem) in DAMAGES.items():
        assert f"rejected checkpoint {step_folder(checkpoints, step)}: {problem}" in outcomes[0][1]
    assert "resumed at step 2" in outcomes[0][1]
    assert_bit_equal(tmp_path, undisturbed_pair)
    for step in saved_steps(checkpoints):
        flip_byte(step_folder(checkpoints, step) / MANIFEST)
    (message, _), (code, _) = overheard(2, tmp_path, "train.max_steps=9")
    assert "no checkpoint is intact" in str(message) and code == 2


@pytest.mark.fault(
    "F07",
    injected="the newest checkpoint is damaged before older ones are removed; one is kept",
    detected="it is read back first, and said not to count",
    recovered="older ones stay until a newer one is intact",
    lost="nothing: one intact checkpoint is there at all times",
)
def test_the_last_intact_checkpoint_is_never_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saver = make_saver(tmp_path, keep_last=1)
    purge, left = saver.retention.purge, []

    def purge_after_damage() -> None:
        newest = saved_steps(tmp_path)[-1]
        if newest in (2, 3, 5):
            flip_byte(step_folder(tmp_path, newest) / rank_file(0, "weights"))
        purge()

    def remove(folder: Path) -> None:
        assert set(intact_steps(tmp_path)) - {int(folder.name.removeprefix("step-"))}, "the last one"
        shutil.rmtree(folder)

    monkeypatch.setattr(saver.retention, "purge", purge_after_damage)
    monkeypatch.setattr(retention, "remove", remove)
    for step in range(1, 7):
        save(saver, step)
        left.append(intact_steps(tmp_path))
    assert left == [[1], [1], [1], [4], [4], [6]]
    assert "step-00000005 does not count as kept" in capsys.readouterr().err
