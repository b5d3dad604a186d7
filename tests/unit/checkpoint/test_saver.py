"""Saving beside training: one at a time, nothing acknowledged before it exists, failures counted and told."""

import itertools
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ifvit.checkpoint import background_save, share_files
from ifvit.checkpoint.layout import saved_steps
from ifvit.checkpoint.saver import SaveError
from ifvit.runtime.fault_injection import VARIABLE
from ifvit.training.state import NonFiniteError
from tests.saved_states import make_saver, progress_of, save, values_of


@pytest.fixture
def storage_goes_on(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Nothing is written until it is set."""
    event = threading.Event()
    monkeypatch.setattr(share_files, "fault_point", lambda *arguments: event.wait(60))
    return event


def test_training_goes_on_while_files_are_written(tmp_path: Path, storage_goes_on: threading.Event) -> None:
    saver = make_saver(tmp_path)
    saver.start(progress_of(1), values_of(1))
    saver.poll()
    assert saver.current is not None and saver.saved is None and saved_steps(tmp_path) == []
    storage_goes_on.set()
    saver.wait()
    assert saver.current is None and saver.saved == progress_of(1) and saved_steps(tmp_path) == [1]


def test_how_long_files_took_is_known(
    tmp_path: Path, storage_goes_on: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(background_save, "time", SimpleNamespace(perf_counter=lambda: next(clock) * 100))
    saver = make_saver(tmp_path)
    saver.start(progress_of(1), values_of(1))
    assert saver.save_seconds == 0
    storage_goes_on.set()
    saver.wait()
    assert saver.save_seconds == 100


def test_one_save_waits_for_the_one_before(
    tmp_path: Path, storage_goes_on: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = make_saver(tmp_path)
    there_when_copied: list[list[int]] = []
    copy = saver.buffer.copy

    def recorded_copy(values: Any) -> None:
        there_when_copied.append(saved_steps(tmp_path))
        copy(values)

    monkeypatch.setattr(saver.buffer, "copy", recorded_copy)
    saver.start(progress_of(1), values_of(1))
    threading.Timer(0.2, storage_goes_on.set).start()
    saver.start(progress_of(2), values_of(2))
    saver.wait()
    assert there_when_copied == [[], [1]]


def test_without_asynchronous_it_is_saved_at_once(tmp_path: Path) -> None:
    saver = make_saver(tmp_path, asynchronous=False)
    saver.start(progress_of(1), values_of(1))
    assert saver.saved == progress_of(1) and saved_steps(tmp_path) == [1]


def test_a_save_that_does_not_end_is_named(tmp_path: Path, storage_goes_on: threading.Event) -> None:
    saver = make_saver(tmp_path, patience_seconds=1)
    saver.start(progress_of(1), values_of(1))
    with pytest.raises(SaveError, match=r"step 1: not done after 1 s .*rank 0 is writing .*\.safetensors"):
        saver.start(progress_of(2), values_of(2))
    storage_goes_on.set()


def failing(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setenv(VARIABLE, fault)


@pytest.mark.parametrize("point", ["checkpoint.write", "checkpoint.before_manifest", "checkpoint.before_rename"])
def test_a_failed_save_is_told_and_leaves_the_old_one(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saver = make_saver(tmp_path)
    save(saver, 1)
    failing(monkeypatch, f"{point}:2=eio")
    save(saver, 2)
    told = capsys.readouterr().err
    assert "checkpoint of step 2 FAILED on rank 0" in told and "Input/output error" in told
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert (saver.saved, saver.num_failed) == (progress_of(1), 1)
    save(saver, 3)
    assert (saver.saved, saver.num_failed) == (progress_of(3), 0)


def test_failures_in_a_row_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saver = make_saver(tmp_path, max_failed_saves=2)
    save(saver, 1)
    failing(monkeypatch, "checkpoint.write:2=eio; checkpoint.write:4-5=eio")
    for step in (2, 3, 4):
        save(saver, step)
    with pytest.raises(SaveError, match=r"2 saves in a row failed, the last at step 5: rank 0: .*disk.* is step 3"):
        save(saver, 5)


def test_a_run_whose_folder_was_removed_is_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half a run would stand there, without its recipe."""
    saver = make_saver(tmp_path / "run/checkpoints")
    shutil.rmtree(tmp_path / "run")
    save(saver, 1)
    assert "step 1 FAILED" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_is_no_number_is_not_saved(tmp_path: Path) -> None:
    saver = make_saver(tmp_path)
    values = values_of(1)
    values["exp_avg"][1][2] = float("nan")
    saver.start(progress_of(1), values)
    with pytest.raises(NonFiniteError, match="not finite at step 1"):
        saver.wait()
    assert list(tmp_path.iterdir()) == []


def test_faults_of_the_program_end_the_run_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saver = make_saver(tmp_path)
    saver.contents = replace(saver.contents, shapes={"weight": (3, 5)})
    with pytest.raises(SaveError, match="KeyError"):
        save(saver, 1)
    assert "Traceback" in capsys.readouterr().err


def test_values_are_float32(tmp_path: Path) -> None:
    values = {kind: [value.to(torch.bfloat16) for value in each] for kind, each in values_of(1).items()}
    with pytest.raises(AssertionError, match="weights of weight is"):
        make_saver(tmp_path).start(progress_of(1), values)


def test_purging_that_fails_is_no_failed_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saver = make_saver(tmp_path)

    def purge() -> None:
        raise OSError("read-only")

    monkeypatch.setattr(saver.retention, "purge", purge)
    save(saver, 1)
    assert saver.saved == progress_of(1)
    assert "older checkpoints cannot be removed: read-only" in capsys.readouterr().err
