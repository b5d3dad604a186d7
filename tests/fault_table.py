"""The option --fault-table FILE: what the tests with the marker `fault` injected and proved, as a Markdown table.

    @pytest.mark.fault("F04", injected="...", detected="...", recovered="...", lost="...")

A row stands for all tests whose marker says the same. With pytest-xdist the rows of all workers come together.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PROPERTY = "fault"
HEADINGS = ("id", "injected", "detected", "recovered", "lost", "test", "outcome")
TEXTS = HEADINGS[1:5]
INTRODUCTION = """\
# What was injected, and what was seen

Written by `make test-faults` from the tests that ran: each row is what the marker `fault` of one or more tests says,
and whether they passed. The ids are those of the fault table in the project's rules for reliability; F17 and F19 are
not here yet. The points at which the tests make something go wrong are in `ifvit/runtime/fault_injection.py`.

"""


class FaultRow(NamedTuple):
    """What one marker says."""

    id: str
    injected: str
    detected: str
    recovered: str
    lost: str


def row_of(marker: pytest.Mark) -> FaultRow:
    """The row that `marker` stands for. Raises UsageError unless it has an id and all four texts."""
    if len(marker.args) != 1 or set(marker.kwargs) != set(TEXTS) or not all(marker.kwargs.values()):
        raise pytest.UsageError(f"marker fault{marker.args}: needs an id and {', '.join(TEXTS)}")
    return FaultRow(marker.args[0], **marker.kwargs)


def markdown(outcomes: dict[FaultRow, dict[str, bool]]) -> str:
    """The table of `outcomes`: by row the tests, and whether each passed."""
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    for row, tests in sorted(outcomes.items()):
        failed = len(tests) - sum(tests.values())
        outcome = f"{failed} of {len(tests)} failed" if failed else f"passed{f' ({len(tests)})' * (len(tests) > 1)}"
        lines.append((*row, named(list(tests)), outcome))
    cells = [" | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in line) for line in lines]
    return "".join(f"| {line} |\n" for line in cells)


def named(tests: list[str]) -> str:
    """The one function that `tests` are cases of, or their files."""
    functions = sorted({test.partition("[")[0] for test in tests})
    files = sorted({function.partition("::")[0] for function in functions})
    return ", ".join(f"`{name}`" for name in (functions if len(functions) == 1 else files))


class FaultTable:
    """Collects the outcomes of a run, in the process that reports them, and writes the table at its end."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.outcomes: dict[FaultRow, dict[str, bool]] = defaultdict(dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == PROPERTY:
                tests = self.outcomes[FaultRow(*value)]  # type: ignore[misc]
                tests[report.nodeid] = tests.get(report.nodeid, True) and report.passed

    def pytest_sessionfinish(self) -> None:
        self.file.write_text(INTRODUCTION + markdown(self.outcomes), encoding="utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", metavar="FILE", type=Path, help="write the table of the faults that were tested")


def pytest_configure(config: pytest.Config) -> None:
    file = config.getoption("--fault-table")
    if file is not None and not hasattr(config, "workerinput"):  # a worker of pytest-xdist sends its reports instead
        config.pluginmanager.register(FaultTable(file))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        properties: list[tuple[str, Any]] = [(PROPERTY, list(row_of(mark))) for mark in item.iter_markers("fault")]
        item.user_properties += properties
