"""How often ranks give a sign of life, and an end that nothing holds up. When they give none: tests/faults."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ifvit.config.exit_codes import ExitCode
from ifvit.runtime import standard_error, watchdog
from ifvit.runtime.beats import Beat
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.late_ranks import LateRanks
from ifvit.runtime.watchdog import Watchdog, beat_interval
from tests.forked_process import exit_code, forked
from tests.full_pipe import full_pipe


@pytest.mark.parametrize(
    ("world_size", "watchdog_seconds", "interval"), [(2, 120, 1.0), (1000, 120, 10.0), (12_000, 120, 15.0), (2, 4, 0.5)]
)
def test_a_rank_is_not_late_before_it_has_missed_eight_beats(
    world_size: int, watchdog_seconds: float, interval: float
) -> None:
    assert beat_interval(world_size, watchdog_seconds) == interval


def no_beat(count: int) -> Beat:
    raise AssertionError("nobody asks for it")


@pytest.mark.parametrize("has_stacks_file", [True, False])
def test_a_job_is_ended_also_where_nobody_reads_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_stacks_file: bool
) -> None:
    monkeypatch.setattr(standard_error, "SECONDS_TO_SAY", 0.1)

    def end() -> None:
        signal.alarm(20)
        sys.stderr = os.fdopen(writer, "w")
        own = Watchdog(Ranks(), no_beat, LateRanks(1, 4, (), ()))
        own.stacks_file = tmp_path / "stacks.txt" if has_stacks_file else None
        own.end_job("rank 0 is late", is_own=True)

    with full_pipe() as writer:
        assert exit_code(forked(end)) == ExitCode.STOPPED
    assert (tmp_path / "stacks.txt").is_file() == has_stacks_file


def test_the_other_ranks_get_the_verdict_before_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def say(line: str) -> None:
        told.append(own.messenger.own_verdict)
        raise SystemExit

    own = Watchdog(Ranks(), no_beat, LateRanks(1, 4, (), ()))
    monkeypatch.setattr(own, "messenger", SimpleNamespace(own_verdict=""))
    monkeypatch.setattr(watchdog, "try_to_say", say)
    with pytest.raises(SystemExit):
        own.end_job("rank 0 is late", is_own=True)
    assert told == ["rank 0 is late"]
