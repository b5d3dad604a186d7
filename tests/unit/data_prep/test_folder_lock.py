"""data_prep/folder_lock.py"""

import os
from pathlib import Path

import pytest

from data_prep.folder_lock import only_writer
from ifvit.config.errors import UserError


def test_a_held_folder_is_refused_by_its_process_and_by_the_option_that_gave_it(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    message = rf"^{folder}: process {os.getpid()} on .* is writing here; wait for it or use another data.shards_root$"
    with only_writer(folder, "data.shards_root"), pytest.raises(UserError, match=message):
        only_writer(folder, "data.shards_root").__enter__()
    with only_writer(folder, "data.shards_root"):
        pass


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = rf"^data.shards_root: cannot write to {tmp_path / 'file'} \(File exists\)$"
    with pytest.raises(UserError, match=message):
        only_writer(tmp_path / "file", "data.shards_root").__enter__()
