"""ifvit/reporting/comparison.py"""

import json
import math
from pathlib import Path

import pytest

from ifvit.config.errors import UserError
from ifvit.reporting.comparison import Comparison, compare_runs
from tests.evaluated_runs import write_results, write_run

KEY = "unseen.scene_alignment.average_match_ratio"


def test_numbers_are_those_of_the_generated_images(comparison: Comparison) -> None:
    numbers = {run.name: run.numbers.get(KEY) for run in comparison.runs}
    assert numbers == {
        "early_seed1": 0.4, "early_seed2": 0.5, "cross_seed1": pytest.approx(0.6), "cross_seed2": pytest.approx(0.7),
        "later": None,
    }  # fmt: skip
    assert comparison.ceiling("real")[KEY] == 1.0
    assert comparison.ceiling("reconstructions")[KEY] == 0.98


def test_seeds_of_one_recipe_are_a_group(comparison: Comparison) -> None:
    early, cross, later = comparison.groups
    assert [run.name for run in early.runs] == ["early_seed1", "early_seed2"]
    assert (early.name, cross.name, later.name) == ("early_seed*", "cross_seed*", "later")
    mean, deviation = early.mean_and_deviation(KEY) or (0, 0)
    assert mean == pytest.approx(0.45)
    assert deviation == pytest.approx(0.05 * math.sqrt(2))  # n - 1
    assert later.mean_and_deviation("loss") is None


@pytest.mark.parametrize(
    "override, num_groups",
    [
        ("seed=9", 1),
        ("data.coco_root=/elsewhere", 1),
        ("tracking.log_every_steps=7", 1),
        ("optimizer.learning_rate=0.5", 2),
        ("train.global_batch_size=8", 2),
    ],
)
def test_what_belongs_to_one_recipe(override: str, num_groups: int, tmp_path: Path) -> None:
    write_run(tmp_path, "one")
    write_run(tmp_path, "two", override)
    assert len(compare_runs([str(tmp_path / "one"), str(tmp_path / "two")]).groups) == num_groups


def test_another_step_is_another_group(tmp_path: Path) -> None:
    write_run(tmp_path, "one")
    write_run(tmp_path, "two", quality=None)
    write_results(tmp_path / "two", 0.5, step=100)
    comparison = compare_runs([str(tmp_path / "one"), str(tmp_path / "two")])
    assert [run.step for run in comparison.runs] == [200, 100]
    assert len(comparison.groups) == 2
    assert comparison.runs[1].numbers["loss"] == pytest.approx(sum(1 / step for step in range(10, 101, 10)) / 10)


def test_different_protocols_are_refused_by_their_fields(tmp_path: Path) -> None:
    write_run(tmp_path, "one")
    write_run(tmp_path, "two", guidance_scale=4.0, omega=3.0)
    with pytest.raises(
        UserError, match=r"^two: was evaluated in another way than one: guidance_scale is 4\.0 and not 2\.0; omega is"
    ):
        compare_runs([str(tmp_path / "one"), str(tmp_path / "two")])


def test_the_folder_of_an_evaluation_chooses_it(tmp_path: Path) -> None:
    write_run(tmp_path, "one", quality=0.25)
    write_results(tmp_path / "one", 0.75, time="2026-11-23")
    first, _ = sorted((tmp_path / "one/evaluation").iterdir())
    key = "val.scene_alignment.average_match_ratio"
    assert compare_runs([str(tmp_path / "one")]).runs[0].numbers[key] == 0.75
    assert compare_runs([str(first)]).runs[0].numbers[key] == 0.25
    with pytest.raises(UserError, match=r"^--step: is 100, .* is of step 200; leave --step out"):
        compare_runs([str(first)], step=100)


def test_runs_that_cannot_be_compared(runs_root: Path) -> None:
    later, early = str(runs_root / "later"), str(runs_root / "early_seed1")
    with pytest.raises(UserError, match=r"later: not evaluated; run ifvit evaluate .*later first"):
        compare_runs([later])
    with pytest.raises(UserError, match=r"not evaluated at step 7; "):
        compare_runs([early], step=7)
    with pytest.raises(UserError, match=r"^early_seed1: is named twice"):
        compare_runs([early, early])
    with pytest.raises(UserError, match=r"no such run"):
        compare_runs([str(runs_root / "gone")])


def test_the_record_is_json_with_nulls_for_what_is_not_there(comparison: Comparison) -> None:
    record = json.loads(json.dumps(comparison.record(), allow_nan=False))
    assert record.keys() == {"protocol", "runs", "seeds", "reconstructions", "real"}
    assert record["runs"][-1]["checkpoint"] is None
    assert [group["runs"] for group in record["seeds"]] == [
        ["early_seed1", "early_seed2"], ["cross_seed1", "cross_seed2"],
    ]  # fmt: skip
    assert record["seeds"][0]["mean"][KEY] == pytest.approx(0.45)
