"""What all tests share: a quiet, offline, single-threaded CPU environment, and the real data where it is needed."""

import os
from pathlib import Path
from typing import Any

import pytest

# Before any test module imports torch, deepspeed, transformers or mlflow, which read them at import.
for name, value in {
    "DS_ACCELERATOR": "cpu",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
}.items():
    os.environ.setdefault(name, value)
os.environ["OMP_NUM_THREADS"] = "1"  # results are compared bit for bit between processes

pytest_plugins = ["tests.fault_table", "tests.training_fixtures"]
pytest.register_assert_rewrite("tests.distributed.training_runs")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with coco_mini, clip_tokenizer and vae_f8c4.

    A test that asks for it is marked `coco`, and fails, never skips, when the folder is missing: `make test` without
    IFVIT_TEST_DATA deselects such tests and says how many.
    """
    folder = os.environ.get("IFVIT_TEST_DATA")
    if not folder:
        pytest.fail("IFVIT_TEST_DATA is not set: give the folder with coco_mini, or deselect with -m 'not coco'")
    path = Path(folder).resolve()
    missing = [name for name in ("coco_mini", "clip_tokenizer", "vae_f8c4") if not (path / name).is_dir()]
    if missing:
        pytest.fail(f"IFVIT_TEST_DATA={folder}: has no {', '.join(missing)}")
    return path


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return Path(__file__).parents[1]


LEFT_OUT = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = 0


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("coco") and not item.get_closest_marker("memorise"):
            item.config.stash[LEFT_OUT] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:  # in a worker of pytest-xdist
        output["left_out"] = session.config.stash[LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Each worker deselects the same tests."""
    left_out = getattr(node, "workeroutput", {}).get("left_out", 0)  # a worker that crashed has none
    node.config.stash[LEFT_OUT] = max(left_out, node.config.stash[LEFT_OUT])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if (left_out := config.stash[LEFT_OUT]) and not os.environ.get("IFVIT_TEST_DATA"):
        terminalreporter.write_line(
            f"{left_out} tests on real COCO images deselected: set IFVIT_TEST_DATA to run them", yellow=True
        )


@pytest.fixture(scope="session")
def fixtures(test_data: Path) -> Path:
    """The reference's tiny weights, inputs, outputs and training steps, one folder per cell."""
    return test_data.parent / "fixtures"
