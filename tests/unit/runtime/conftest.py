"""A real MLflow store in a file, and a run that is tracked in it."""

from pathlib import Path

import pytest

from ifvit.runtime import tracking
from tests.unit.runtime.tracked_run import TrackedRun


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one sqlite store for all tests: making one takes seconds."""
    return tmp_path_factory.mktemp("läufe and spaces")


@pytest.fixture
def quick_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks for new rows, and tries again, without the waits of a long run."""
    monkeypatch.setattr(tracking, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(tracking, "FIRST_RETRY_SECONDS", 0.2)


@pytest.fixture
def run(tmp_path: Path, store: Path) -> TrackedRun:
    return TrackedRun(tmp_path, store)
