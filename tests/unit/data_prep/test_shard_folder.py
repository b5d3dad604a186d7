"""data_prep/shard_folder.py"""

import errno
import os
from pathlib import Path

import pytest

from data_prep.shard_folder import storage_errors
from ifvit.config.errors import UserError


@pytest.mark.parametrize(
    "number, name, line",
    [
        (errno.EACCES, ".lock", r"/\.lock: Permission denied; give this user the right to it .*chmod -R g\+rwX"),
        (errno.EROFS, None, r": Read-only file system; the same command goes on from there"),
    ],
)
def test_errors_of_the_storage_are_lines_with_what_to_do(
    tmp_path: Path, number: int, name: str | None, line: str
) -> None:
    with pytest.raises(UserError, match=rf"^{tmp_path}{line}"), storage_errors(tmp_path):
        raise OSError(number, os.strerror(number), name and str(tmp_path / name))


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError("of a library")])
def test_what_is_no_error_of_the_storage_stays_what_it_is(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(OSError) as caught, storage_errors(tmp_path):
        raise error
    assert caught.value is error
