"""Which errors the other ranks are told of as this rank's failure: those that they may still wait through."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ifvit.checkpoint.saver import SaveError
from ifvit.config.errors import UserError
from ifvit.config.exit_codes import ExitCode
from ifvit.config.schema import RuntimeConfig
from ifvit.runtime import late_ranks
from ifvit.runtime.distributed import Ranks
from ifvit.training import guards as guards_module
from ifvit.training.guards import Guards
from ifvit.training.phases import END
from ifvit.training.state import AgreedError, LostRankError, NonFiniteError, ReplicaError
from tests.forked_process import exit_code, forked


def told_failure(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Exception | None:
    """What the watchdog is told when `error` ends training."""
    told: list[Exception | None] = []
    with pytest.raises(type(error)), Guards(RuntimeConfig(), Ranks()) as guards:
        stop = guards.watchdog.stop
        monkeypatch.setattr(guards.watchdog, "stop", lambda failure: told.append(failure) or stop(failure))
        raise error
    (failure,) = told
    return failure


@pytest.mark.parametrize("error", [UserError("shard-000003.tar: damaged"), ValueError("ours")])
def test_an_error_of_one_rank_is_told(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told_failure(error, monkeypatch) is error


@pytest.mark.parametrize("error", [NonFiniteError("nan"), ReplicaError("bit"), SaveError("disk"), SystemExit(2)])
def test_an_end_of_all_ranks_is_no_failure(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 may take long to say it to MLflow, and must not be ended for the failure of the others meanwhile."""
    assert told_failure(error, monkeypatch) is None


@pytest.mark.parametrize(
    ("error", "blamed", "events"),
    [
        (ValueError("ours"), "", ["told", "ValueError is reported"]),
        (RuntimeError("gloo"), "rank 1 is gone", ["told", "LostRankError is reported"]),
        (SaveError("disk"), "", ["SaveError is reported", "told"]),
        (None, "", ["NoneType is reported", "told"]),
    ],
)
def test_the_others_are_told_of_an_error_before_it_is_reported_and_of_a_common_end_afterwards(
    error: Exception | None, blamed: str, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports go to MLflow, which may be down. Until its end a rank that has not failed alone is watched."""
    seen: list[str] = []

    @contextmanager
    def report() -> Iterator[None]:
        ended: Exception | None = None
        try:
            yield
        except Exception as raised:
            ended = raised
            raise
        finally:
            seen.append(f"{type(ended).__name__} is reported")

    def stop(failure: Exception | None) -> str:
        seen.append("told")
        original(failure)
        return blamed

    try:
        with Guards(RuntimeConfig(), Ranks()) as guards:
            original = guards.watchdog.stop
            monkeypatch.setattr(guards.watchdog, "stop", stop)
            with report(), guards.telling():
                if error is not None:
                    raise error
    except (LostRankError, type(error)) as raised:
        assert isinstance(raised, LostRankError) == bool(blamed)
    assert seen == events
    assert (guards.phases.position.phase == END) == isinstance(error, AgreedError)  # it has long


@pytest.mark.parametrize("error", [ValueError("ours"), SaveError("disk")])
def test_a_report_of_an_error_that_hangs_is_ended(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (guards_module, late_ranks):
        monkeypatch.setattr(module, "LONG_PHASE_PATIENCE", 0.1)

    @contextmanager
    def report() -> Iterator[None]:
        try:
            yield
        finally:
            time.sleep(600)

    def fail() -> None:
        signal.alarm(30)
        with Guards(RuntimeConfig(watchdog_seconds=4), Ranks()) as guards, report(), guards.telling():
            raise error

    assert exit_code(forked(fail)) == ExitCode.STOPPED
