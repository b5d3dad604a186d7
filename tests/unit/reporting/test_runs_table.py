"""The table of runs: readable at any width."""

import json
from pathlib import Path

import pytest

from ifvit.commands.main import main
from ifvit.reporting.run_overview import RunOverview
from ifvit.reporting.runs_table import age_text, runs_table, shortened

RUNS = [
    RunOverview(
        "cross_intermediate_seed_1", "runs/cross_intermediate_seed_1", "running", None, 123_450, 1_000_000, 120_000,
        0.2043, 0.2101, 5123.4, 43_821.0, updated=990.0, starts=3,
    ),
    RunOverview("bad", "runs/bad", "failed", "the loss is nan", 10, 300, None, float("nan"), updated=0.5, starts=1),
    RunOverview("new", "runs/new", "stale", None, 0, 300, updated=1000.0, starts=1),
]  # fmt: skip


def test_with_room_for_all() -> None:
    assert runs_table(RUNS, 200, now=1000.0).splitlines() == [
        "run                        state       step         of    loss  validation  samples/s      left     updated"
        "  starts",
        "cross_intermediate_seed_1  running  123,450  1,000,000  0.2043      0.2101      5,123  12:10:21    10 s ago"
        "       3",
        "bad                        failed        10        300     nan           -          -         -  16 min ago"
        "       1",
        "new                        stale          0        300       -           -          -         -     0 s ago"
        "       1",
        "bad: the loss is nan",
    ]


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 45])
def test_lines_fit_and_what_is_left_out_is_said(width: int) -> None:
    table = runs_table(RUNS, width, now=1000.0)
    *lines, last = table.splitlines()
    assert max(map(len, lines)) <= width
    titles = lines[0].split()
    assert titles[:3] == ["run", "state", "step"]
    left_out = last.removeprefix("no room for: ").partition(";")[0].split(", ") if "no room" in last else []
    every = ["run", "state", "step", "of", "loss", "validation", "samples/s", "left", "updated", "starts"]
    assert sorted(titles + left_out) == sorted(every)
    assert bool(left_out) == (width < 112)


def test_eighty_columns_keep_what_is_asked_most() -> None:
    titles = runs_table(RUNS, 80, now=1000.0).splitlines()[0].split()
    assert {"run", "state", "step", "loss", "left", "updated"} <= set(titles)


def test_no_column_of_validation_where_no_run_has_one() -> None:
    table = runs_table(RUNS[1:], 45, now=1000.0)
    assert "validation" not in table


def test_names_keep_their_ends() -> None:
    assert shortened("cross_intermediate_seed_1", 12) == "cros…_seed_1"
    assert shortened("short", 12) == "short"


@pytest.mark.parametrize(
    "seconds, text", [(0.2, "0 s ago"), (59, "59 s ago"), (60, "1 min ago"), (7300, "2 h ago"), (200_000, "2 d ago")]
)
def test_ages(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


def test_the_command_on_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().err == f"{tmp_path}: no runs yet\n"
    assert main(["runs", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["runs", str(tmp_path / "nowhere")]) == 2


def test_json_has_every_number_and_no_nan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("ifvit.reporting.run_overview.read_overviews", lambda root: RUNS)
    assert main(["runs", "--json"]) == 0

    def refuse(constant: str) -> float:
        raise AssertionError(constant)

    first, second, _ = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert first == vars(RUNS[0])
    assert second["loss"] is None
