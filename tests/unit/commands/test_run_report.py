"""The end of a run's report, whatever has become of its folder."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from ifvit.checkpoint.saver import SaveError
from ifvit.commands.run_report import RunReport
from ifvit.runtime.environment import append_attempt
from ifvit.runtime.run_directory import RunDirectory
from ifvit.training.state import TrainState


@pytest.mark.parametrize(("is_gone", "said"), [(True, "the file is gone"), (False, "Expecting")])
def test_a_run_whose_folder_is_gone_or_damaged_ends_with_its_own_error_and_so_does_mlflow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_gone: bool, said: str
) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    append_attempt(directory.environment_file, {"first_step": 0})
    report = RunReport.__new__(RunReport)  # its start is that of a whole run
    tracker, progress = Mock(), SimpleNamespace(close=lambda: None)
    vars(report).update(directory=directory, state=TrainState(), tracker=tracker, progress=progress)
    with pytest.raises(SaveError, match="no disk"), report:
        if is_gone:
            shutil.rmtree(directory.path)
        else:
            directory.environment_file.write_bytes(b"{")
        raise SaveError("no disk")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{directory.environment_file}: how this start ended is not written: {said}")
    tracker.finish.assert_called_once_with("FAILED")
