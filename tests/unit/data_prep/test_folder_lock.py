"""data_prep/folder_lock.py"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.folder_lock import Claims, one_at_a_time, only_writer
from ifvit.config.errors import UserError


@pytest.fixture
def other_process():
    """`other_process(hold)` runs `hold(say)` in a process of its own, up to the moment when it calls `say()`."""
    started = []

    def start(hold: Callable[[Callable[[], object]], None]) -> int:
        receiver, sender = os.pipe()
        if (process := os.fork()) == 0:
            try:
                hold(lambda: os.write(sender, b"x"))
            finally:
                os._exit(0)
        started.append(process)
        os.close(sender)
        assert os.read(receiver, 1) == b"x"
        os.close(receiver)
        return process

    yield start
    for process in started:
        kill(process)


def kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_all_units_are_claimed_only_where_nobody_else_has_one(tmp_path: Path, other_process) -> None:
    path = tmp_path / "claims"

    def hold(say: Callable[[], object]) -> None:
        claims = Claims(path)
        assert claims.take(10**9)
        say()
        time.sleep(60)

    process = other_process(hold)
    with Claims(path) as claims:
        assert not claims.take_all()
        kill(process)
        assert claims.take_all()

        def refused(say: Callable[[], object]) -> None:
            other = Claims(path)
            if not other.take(0) and not other.take(10**12):
                say()

        other_process(refused)


def test_a_unit_is_claimed_by_one_process_until_it_ends(tmp_path: Path, other_process) -> None:
    path = tmp_path / "claims"

    def hold(say: Callable[[], object]) -> None:
        claims = Claims(path)
        assert claims.take(3) and claims.take(10**9)
        say()
        time.sleep(60)

    process = other_process(hold)
    with Claims(path) as claims:
        assert [claims.take(unit) for unit in (2, 3, 4, 10**9)] == [True, False, True, False]
        kill(process)
        assert claims.take(3) and claims.take(10**9)
    assert path.stat().st_size == 0


def test_a_claim_that_is_given_back_can_be_taken(tmp_path: Path, other_process) -> None:
    with Claims(tmp_path / "claims") as claims:
        assert claims.take(1) and claims.take(2)
        claims.give_back(1)

        def take(say: Callable[[], object]) -> None:
            others = Claims(tmp_path / "claims")
            if others.take(1) and not others.take(2):
                say()

        other_process(take)


def test_one_at_a_time_waits_and_says_so(tmp_path: Path, other_process, capfd: pytest.CaptureFixture[str]) -> None:
    def hold(say: Callable[[], object]) -> None:
        with one_at_a_time(tmp_path / "lock", "works"):
            say()
            time.sleep(0.3)
            (tmp_path / "done").touch()

    other_process(hold)
    with one_at_a_time(tmp_path / "lock", "works"):
        assert (tmp_path / "done").exists()
    assert f"waiting: another process works ({tmp_path})" in capfd.readouterr().err


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
