"""data_prep/begun_folder.py; what the commands do with it is in test_scenes.py and test_encoders.py."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from data_prep.begun_folder import begun_folder, option
from ifvit.config.errors import UserError

SETTINGS: dict[str, Any] = {"num_images": 3, "colors": ["red", "blue"], "scenes": {"seed": 0}}


def begin(folder: Path, settings: dict[str, Any]) -> None:
    with begun_folder(folder, "made.json", settings, option):
        assert json.loads((folder / "made.json").read_text())  # there before anything is made


def test_the_same_settings_go_on(tmp_path: Path) -> None:
    begin(tmp_path / "new", SETTINGS)
    (tmp_path / "new" / "something").write_text("made")
    begin(tmp_path / "new", dict(reversed(SETTINGS.items())))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({**SETTINGS, "num_images": 4}, "--num-images: is 4, but {} was made with 3; delete it or use another --out"),
        ({**SETTINGS, "colors": ["red"]}, "--colors: is red, but {} was made with red blue; "),
        ({**SETTINGS, "scenes": {"seed": 1}}, "--scenes.seed: is 1, but {} was made with 0; "),
        ({**SETTINGS, "more": 1}, "--more: is 1, but {} was made with none; "),
        ({"num_images": 3, "colors": ["red", "blue"]}, "--scenes.seed: is none, but {} was made with 0; "),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    begin(tmp_path, SETTINGS)
    before = (tmp_path / "made.json").read_bytes()
    with pytest.raises(UserError) as error:
        begin(tmp_path, settings)
    assert str(error.value).startswith(message.format(tmp_path))
    assert (tmp_path / "made.json").read_bytes() == before


def test_a_folder_of_somebody_else_stays_as_it_is(tmp_path: Path) -> None:
    for name in (".lock", "notes"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=rf"^--out {tmp_path}: is not empty; give another folder$"):
        begin(tmp_path, SETTINGS)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {".lock": "mine", "notes": "mine"}


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    message = rf"^--out {tmp_path}: cannot be written: No space left on device$"
    with pytest.raises(UserError, match=message), begun_folder(tmp_path, "made.json", SETTINGS, option):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
