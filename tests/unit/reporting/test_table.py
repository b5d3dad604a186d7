"""ifvit/reporting/table.py and ifvit/reporting/text.py"""

import json
from pathlib import Path
from typing import Any

import pytest

from ifvit.reporting.comparison import Comparison, compare_runs
from ifvit.reporting.table import COST_TITLES, comparison_text, markdown, table_rows
from ifvit.reporting.text import remarks, results_text
from tests.evaluated_runs import write_run


@pytest.fixture(scope="module")
def cells(comparison: Comparison) -> dict[str, dict[str, str]]:
    """By run and title."""
    titles, *rows = table_rows(comparison)
    return {row[0]: dict(zip(titles, row, strict=True)) for row in rows}


def test_a_row_for_each_run_mean_and_ceiling(cells: dict[str, dict[str, str]]) -> None:
    assert list(cells) == [
        "early_seed1", "early_seed2", "cross_seed1", "cross_seed2", "later", "early_seed* (n = 2)",
        "cross_seed* (n = 2)", "reconstructions", "real images",
    ]  # fmt: skip


def test_cells_have_both_splits(cells: dict[str, dict[str, str]]) -> None:
    assert cells["early_seed1"]["match ratio"] == "0.500 / 0.400"
    assert cells["early_seed1"]["conditioning"] == "concat"
    assert cells["early_seed1"]["steps"] == "200"
    assert cells["early_seed* (n = 2)"]["match ratio"] == "0.550 ± 0.071 / 0.450 ± 0.071"
    assert cells["real images"]["Frechet distance"] == "0.00 / 0.00"
    assert cells["real images"]["parameters"] == ""


def test_a_run_without_evaluation_says_so(cells: dict[str, dict[str, str]]) -> None:
    later = cells["later"]
    assert {title for title, cell in later.items() if cell == "not run"} == later.keys() - set(COST_TITLES)
    assert later["steps"] == "-" and later["parameters"] == cells["early_seed1"]["parameters"]


def test_markdown_is_one_table_with_its_remarks(comparison: Comparison) -> None:
    table, below = markdown(comparison).split("\n\n")
    lines = table.splitlines()
    assert {line.count("|") for line in lines} == {len(table_rows(comparison)[0]) + 1}
    for remark in (
        "val (500 images) / unseen (500 images)",
        "omega 1",
        "trained on 1 CPU process",
        "median",
        "checkpoints and sample grids",
    ):
        assert remark in below
        assert remark in comparison_text(comparison)


def test_a_terminal_gets_cost_above_quality(comparison: Comparison) -> None:
    titles, *rows = table_rows(comparison)
    cost, quality, _ = (part.splitlines() for part in comparison_text(comparison).split("\n\n"))
    assert [cost[0].split("  ")[0], quality[0].split("  ")[0]] == ["run", "run"]
    assert [line.split("  ")[0] for line in quality[1:]] == [row[0] for row in rows]
    assert [line.split("  ")[0] for line in cost[1:]] == [row[0] for row in rows[:-2]]
    assert cost[0].endswith(COST_TITLES[-1]) and quality[0].endswith(titles[-1])


def test_different_hardware_is_said(comparison: Comparison) -> None:
    from dataclasses import replace

    first, *others = comparison.runs
    mixed = Comparison((replace(first, hardware="1 x GPU"), *others))
    assert "speeds and times are not comparable: early_seed1: 1 x GPU; early_seed2, cross_seed1" in markdown(mixed)


def test_an_evaluation_s_text_leaves_out_what_was_not_measured(comparison: Comparison) -> None:
    assert "match ratio" in results_text(comparison.evaluations[0])
    results: dict[str, Any] = json.loads(json.dumps(comparison.evaluations[0]))
    for image_sets in results["splits"].values():
        for metrics in image_sets.values():
            metrics["scene_alignment"] = {"remarks": ["nothing was counted"]}
    text = results_text(results)
    assert "match ratio" not in text and "Frechet distance" in text
    assert text.count("nothing was counted") == 1
    assert [line.split()[0] for line in text.splitlines()[1:5]] == ["val,", "generated", "reconstructions", "real"]


def test_a_metric_that_only_a_later_run_has_is_a_column_of_all(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        write_run(tmp_path, name, f"seed={seed}")
    (file,) = tmp_path.glob("one/evaluation/*/results.json")
    older = json.loads(file.read_text())
    for image_sets in older["splits"].values():
        for metrics in image_sets.values():
            del metrics["clip_score"]
    file.write_text(json.dumps(older))
    comparison = compare_runs([str(tmp_path / "one"), str(tmp_path / "two")])
    titles, *rows = table_rows(comparison)
    cells = {row[0]: row[titles.index("CLIP score")] for row in rows}
    assert (cells["one"], cells["two"]) == ("- / -", "0.150 / 0.120")
    assert (cells["reconstructions"], cells["real images"]) == ("0.294 / 0.294", "0.300 / 0.300")
    assert "CLIP score: a cosine" in comparison_text(comparison)
    record = comparison.record()
    assert record["real"]["val.clip_score.cosine"] == 0.3
    assert "val.clip_score.cosine" in record["seeds"][0]["mean"]  # of runs of which the first does not have it


def test_a_remark_of_one_split_says_so(comparison: Comparison) -> None:
    results: dict[str, Any] = json.loads(json.dumps(comparison.evaluations[0]))
    generated = {split: image_sets["generated"] for split, image_sets in results["splits"].items()}
    for split, number in (("val", 7), ("unseen", 9)):
        generated[split]["clip_score"]["remarks"] += ["both", f"{number} were cut"]
    assert remarks([results, results])[1:] == [
        "CLIP score: a cosine", "both", "val: 7 were cut", "unseen: 9 were cut",
    ]  # fmt: skip


def test_a_mean_over_nothing_is_a_dash(comparison: Comparison) -> None:
    results: dict[str, Any] = json.loads(json.dumps(comparison.evaluations[0]))
    results["splits"]["val"]["generated"]["scene_alignment"]["relation_accuracy"] = None
    generated = results_text(results).splitlines()[2]
    assert generated.split()[-1] == "-"
