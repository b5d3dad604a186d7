"""tests/fault_table.py: which rows a run of tests writes."""

from pathlib import Path

import pytest

from tests.fault_table import HEADINGS, INTRODUCTION, PROPERTY, FaultRow, FaultTable, markdown, row_of

KILLED = FaultRow("F04", "rank 1 killed", "rank 1 named", "restart exact", "at most one step")
CUT = FaultRow("F06", "a file | cut", "file named", "older one loads", "nothing")


def report(nodeid: str, row: FaultRow, outcome: str = "passed", when: str = "call") -> pytest.TestReport:
    return pytest.TestReport(
        nodeid,
        (nodeid, 1, nodeid),
        {},
        outcome,
        None,
        when,
        user_properties=[(PROPERTY, list(row))],  # type: ignore[arg-type]
    )


def test_rows_are_sorted_and_hold_what_the_tests_proved(tmp_path: Path) -> None:
    table = FaultTable(tmp_path / "README.md")
    for done in (
        report("tests/faults/test_files.py::test_cut[1]", CUT),
        report("tests/faults/test_files.py::test_cut[2]", CUT),
        report("tests/faults/test_killed.py::test_killed", KILLED),
    ):
        table.pytest_runtest_logreport(done)
    table.pytest_sessionfinish()
    assert table.file.read_text() == INTRODUCTION + (
        f"| {' | '.join(HEADINGS)} |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        "| F04 | rank 1 killed | rank 1 named | restart exact | at most one step "
        "| `tests/faults/test_killed.py::test_killed` | passed |\n"
        r"| F06 | a file \| cut | file named | older one loads | nothing "
        "| `tests/faults/test_files.py::test_cut` | passed (2) |\n"
    )


def test_each_command_writes_its_own_rows_and_leaves_the_others(tmp_path: Path) -> None:
    def written(*done: pytest.TestReport) -> list[str]:
        table = FaultTable(tmp_path / "README.md")
        for each in done:
            table.pytest_runtest_logreport(each)
        table.pytest_sessionfinish()
        return [row for row in table.file.read_text().splitlines() if row.startswith("| F")]

    soak = FaultRow("F05", "many kills", "rank 1 named", "exact", "steps", is_soak=True)
    first = written(report("tests/test_killed.py::test_killed", KILLED), report("tests/test_files.py::test_cut", CUT))
    both = written(report("tests/test_soak.py::test_soak", soak))
    of_the_soak = (
        "| F05 | many kills | rank 1 named | exact | steps | `tests/test_soak.py::test_soak` | passed; `make soak` |"
    )
    assert both == [first[0], of_the_soak, first[1]]
    (kept, failed) = written(report("tests/test_files.py::test_cut", CUT, "failed"))
    assert (kept, failed.rpartition("` | ")[2]) == (of_the_soak, "1 of 1 failed |")


def test_a_failure_in_any_part_of_a_test_is_one() -> None:
    table = FaultTable(Path("unused"))
    for when, outcome in (("setup", "passed"), ("call", "failed"), ("teardown", "passed")):
        table.pytest_runtest_logreport(report("a.py::test_a", KILLED, outcome, when))
    table.pytest_runtest_logreport(report("a.py::test_b", KILLED))
    assert "| `a.py` | 1 of 2 failed |" in markdown(table.outcomes)


def test_a_marker_must_say_everything() -> None:
    marker = pytest.mark.fault("F04", injected="a", detected="b", recovered="c", lost="d").mark
    assert row_of(marker) == FaultRow("F04", "a", "b", "c", "d")
    with pytest.raises(pytest.UsageError, match="needs an id and injected, detected, recovered, lost"):
        row_of(pytest.mark.fault("F04", injected="a", detected="b", recovered="", lost="d").mark)
