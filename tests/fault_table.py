"""The option --fault-table FILE: what the tests with the marker `fault` injected and proved, as a Markdown table.

    @pytest.mark.fault("F04", injected="...", detected="...", recovered="...", lost="...")

A row stands for all tests whose marker says the same. With pytest-xdist the rows of all workers come together. The
soak has a command of its own: rows of the command that did not run stay in the file as they were.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

PROPERTY = "fault"
HEADINGS = ("id", "injected", "detected", "recovered", "lost", "test", "outcome")
TEXTS = HEADINGS[1:5]
INTRODUCTION = """\
# What was injected, and what was seen

Written by `make test-faults`, and the soak's row by `make soak`, from the tests that ran: each row is what the marker
`fault` of one or more tests says, and whether they passed. The ids are those of the fault table in the project's rules
for reliability; F17 and F19 are not here yet. The points at which the tests make something go wrong are in
`ifvit/runtime/fault_injection.py`.

"""
SOAK = "; `make soak`"  # ends the outcome of its row


class FaultRow(NamedTuple):
    """What one marker says, and whether its test is part of the soak."""

    id: str
    injected: str
    detected: str
    recovered: str
    lost: str
    is_soak: bool = False


def row_of(marker: pytest.Mark, is_soak: bool = False) -> FaultRow:
    """The row that `marker` stands for. Raises UsageError unless it has an id and all four texts."""
    if len(marker.args) != 1 or set(marker.kwargs) != set(TEXTS) or not all(marker.kwargs.values()):
        raise pytest.UsageError(f"marker fault{marker.args}: needs an id and {', '.join(TEXTS)}")
    return FaultRow(marker.args[0], **marker.kwargs, is_soak=is_soak)


def markdown(outcomes: dict[FaultRow, dict[str, bool]], before: str = "") -> str:
    """The table of `outcomes`, by row the tests and whether each passed, with the rows of the file `before` that the
    other command wrote."""
    ran = {row.is_soak for row in outcomes}
    rows = [row for row in before.splitlines() if row.startswith("| F") and is_of_soak(row) not in ran]
    for row, tests in outcomes.items():
        failed = len(tests) - sum(tests.values())
        outcome = f"{failed} of {len(tests)} failed" if failed else f"passed{f' ({len(tests)})' * (len(tests) > 1)}"
        rows.append(line((*row[: len(TEXTS) + 1], named(list(tests)), outcome + SOAK * row.is_soak)))
    return "".join(f"{row}\n" for row in (line(HEADINGS), line(("---",) * len(HEADINGS)), *sorted(rows)))


def line(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", r"\|").replace("\n", " ") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def is_of_soak(row: str) -> bool:
    return row.endswith(f"{SOAK} |")


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
        before = self.file.read_text(encoding="utf-8") if self.file.is_file() else ""
        self.file.write_text(INTRODUCTION + markdown(self.outcomes, before), encoding="utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", metavar="FILE", type=Path, help="write the table of the faults that were tested")


def pytest_configure(config: pytest.Config) -> None:
    file = config.getoption("--fault-table")
    if file is not None and not hasattr(config, "workerinput"):  # a worker of pytest-xdist sends its reports instead
        config.pluginmanager.register(FaultTable(file))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        is_soak = item.get_closest_marker("soak") is not None
        rows = [row_of(mark, is_soak) for mark in item.iter_markers("fault")]
        item.user_properties += [(PROPERTY, list(row)) for row in rows]
