"""Which errors the other ranks are told of as this rank's failure: those that they may still wait through."""

import pytest

from ifvit.checkpoint.saver import SaveError
from ifvit.config.errors import UserError
from ifvit.config.schema import RuntimeConfig
from ifvit.runtime.distributed import Ranks
from ifvit.training.guards import Guards
from ifvit.training.state import NonFiniteError, ReplicaError


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
