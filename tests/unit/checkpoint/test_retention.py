"""Which checkpoints are kept: the newest intact ones, and milestones."""

from pathlib import Path

import pytest

from ifvit.checkpoint import retention
from ifvit.checkpoint.layout import rank_file, saved_steps, step_folder
from ifvit.checkpoint.verification import verify
from tests.saved_states import make_saver, save


def damage(folder: Path) -> None:
    file = folder / rank_file(0, "weights")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    saver = make_saver(tmp_path, keep_last=2)
    for step in (1, 2, 3, 4):
        save(saver, step)
    assert saved_steps(tmp_path) == [3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


def test_milestones_are_kept_for_ever(tmp_path: Path) -> None:
    saver = make_saver(tmp_path, keep_last=1, every_steps=1, milestone_every_steps=3)
    for step in range(1, 9):
        save(saver, step)
    assert saved_steps(tmp_path) == [3, 6, 8]


def test_damaged_ones_do_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saver = make_saver(tmp_path, keep_last=2)
    for step in (1, 2, 3):
        save(saver, step)
    damage(step_folder(tmp_path, 3))
    save(saver, 4)
    assert saved_steps(tmp_path) == [2, 3, 4]
    assert "step-00000003 does not count as kept: rank-00000.weights" in capsys.readouterr().err
    save(saver, 5)
    assert saved_steps(tmp_path) == [4, 5]


def test_those_saved_among_skipped_steps_do_not_count(tmp_path: Path) -> None:
    """With keep_last=1 the last one that a rollback could go to would be removed."""
    saver = make_saver(tmp_path, keep_last=1)
    save(saver, 1)
    save(saver, 2, skipped_in_a_row=1)
    assert saved_steps(tmp_path) == [1, 2]
    save(saver, 3)
    assert saved_steps(tmp_path) == [3]


def test_after_a_rollback_nothing_later_is_there_to_resume_from(tmp_path: Path) -> None:
    saver = make_saver(tmp_path)
    for step in (1, 2, 3):
        save(saver, step, skipped_in_a_row=step - 1)
    retention.remove_after(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_what_has_verified_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(retention, "verify", lambda folder: read.append(folder.name) or verify(folder))
    saver = make_saver(tmp_path, keep_last=2)
    for step in (1, 2, 3, 4):
        save(saver, step)
    assert read == ["step-00000003", "step-00000002", "step-00000004"]


def test_what_is_being_removed_has_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(folder: Path) -> None:
        raise OSError("busy")

    saver = make_saver(tmp_path, keep_last=1)
    save(saver, 1)
    monkeypatch.setattr(retention.shutil, "rmtree", refuse)
    save(saver, 2)
    assert saved_steps(tmp_path) == [2]
    assert "older checkpoints cannot be removed: busy" in capsys.readouterr().err


def test_the_same_step_again_takes_the_place_of_the_other(tmp_path: Path) -> None:
    """As after a fall back beyond a damaged one."""
    save(make_saver(tmp_path), 1)
    damage(step_folder(tmp_path, 1))
    save(make_saver(tmp_path), 1)
    verify(step_folder(tmp_path, 1))
