"""ifvit/reporting/comparison.py"""

import json
import math
import shutil
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    "checkpoint, num_groups",
    [
        ({}, 1),
        ({"ema_decay": 0.99}, 2),
        ({"scaling_factor": 0.7}, 2),
        ({"diffusion": {"beta_end": 0.02}}, 2),
        ({"weights_sha256": "one 200"}, 2),  # the same weights evaluated elsewhere
        ({"step": None, "ema_decay": None}, 2),  # an export: trained how far?
    ],
)
def test_what_belongs_to_one_kind_of_weights(checkpoint: dict[str, Any], num_groups: int, tmp_path: Path) -> None:
    write_run(tmp_path, "one", "seed=1")
    write_run(tmp_path, "two", "seed=2", quality=None)
    write_results(tmp_path / "two", 0.5, checkpoint=checkpoint)
    assert len(compare_runs([str(tmp_path / "one"), str(tmp_path / "two")]).groups) == num_groups


def test_how_it_was_evaluated_is_no_other_recipe(tmp_path: Path) -> None:
    """`ifvit evaluate --batch-size 2` leaves it in the evaluation's recipe."""
    write_run(tmp_path, "one", "seed=1")
    write_run(tmp_path, "two", "seed=2", "sampling.batch_size=2")
    assert len(compare_runs([str(tmp_path / "one"), str(tmp_path / "two")]).groups) == 1


def test_names_that_begin_differently_are_called_by_their_cell(tmp_path: Path) -> None:
    write_run(tmp_path, "one", "seed=1")
    write_run(tmp_path, "two", "seed=2")
    (group,) = compare_runs([str(tmp_path / "one"), str(tmp_path / "two")]).groups
    assert group.name == group.runs[0].cell == "cross_attention, early"


def test_several_evaluations_of_one_run_stand_side_by_side(tmp_path: Path) -> None:
    write_run(tmp_path, "run")
    write_results(tmp_path / "run", 0.3, step=100)
    write_results(tmp_path / "run", 0.4, step=100, checkpoint={"ema_decay": 0.5})
    write_results(tmp_path / "run", 0.5, step=100, checkpoint={"ema_decay": 0.5, "scaling_factor": 0.7})
    export = tmp_path / "export"
    write_run(tmp_path / "made", "run", quality=None)
    (tmp_path / "made/run").rename(export)
    (export / "config.json").touch()
    write_results(export, 0.5, step=None, checkpoint={"ema_decay": None})
    folders = sorted((tmp_path / "run/evaluation").iterdir(), key=lambda folder: folder.name.split("-")[-1])
    paths = [str(path) for path in (*folders, export)]
    comparison = compare_runs(paths)
    assert [run.label for run in comparison.runs] == [
        "run (step 200, EMA 0.9)",
        "run (step 100, EMA 0.9)",
        f"run ({paths[2]})",
        f"run ({paths[3]})",
        "run (export)",
    ]
    assert len(comparison.groups) == 5
    assert len({run["run"] for run in comparison.record()["runs"]}) == 5


def test_a_group_of_seeds_says_which_weights_where_that_tells_it_apart(tmp_path: Path) -> None:
    paths = []
    for seed in (1, 2):
        write_run(tmp_path, f"run{seed}", f"seed={seed}")
        write_results(tmp_path / f"run{seed}", 0.3, step=100)
        paths += map(str, sorted((tmp_path / f"run{seed}/evaluation").iterdir()))
    assert [group.name for group in compare_runs(paths).groups] == [
        "run* (step 100, EMA 0.9)",
        "run* (step 200, EMA 0.9)",
    ]


def test_weights_without_a_recipe_are_compared_by_their_evaluation_s(tmp_path: Path) -> None:
    write_run(tmp_path, "imported", quality=None)
    folder = tmp_path / "imported"
    (folder / "config.json").touch()
    write_results(folder, 0.5, step=None)
    for file in ("recipe.yaml", "environment.json", "metrics.jsonl"):
        (folder / file).unlink()
    write_run(tmp_path, "run")
    imported, run = compare_runs([str(folder), str(tmp_path / "run")]).runs
    assert imported.name == "imported" and imported.counted == run.counted
    assert imported.numbers["steps_per_second"] is None and imported.hardware == "unknown"
    (evaluation,) = (folder / "evaluation").iterdir()
    assert compare_runs([str(evaluation)]).runs[0].numbers == imported.numbers
    (evaluation / "results.json").unlink()
    with pytest.raises(
        UserError, match=r"imported: not evaluated; run ifvit evaluate .*imported --recipe RECIPE first"
    ):
        compare_runs([str(folder)])


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


def test_a_model_shipped_with_results_is_known_by_its_newest_ones(tmp_path: Path) -> None:
    write_run(tmp_path / "made", "model")
    model = (tmp_path / "made/model").rename(tmp_path / "model")
    (model / "config.json").touch()
    (evaluation,) = (model / "evaluation").iterdir()
    (evaluation / "results.json").rename(model / "results.json")
    shutil.rmtree(model / "evaluation")
    (shipped,) = compare_runs([str(model)]).runs
    assert shipped.numbers["val.scene_alignment.average_match_ratio"] == 0.5
    assert shipped.hardware == "1 CPU process(es), Test CPU"
    write_results(model, 0.75, time="2026-11-23T00:00:00", step=None)
    (newer,) = compare_runs([str(model)]).runs
    assert newer.numbers["val.scene_alignment.average_match_ratio"] == 0.75


def test_runs_that_cannot_be_compared(runs_root: Path) -> None:
    later, early = str(runs_root / "later"), str(runs_root / "early_seed1")
    with pytest.raises(UserError, match=r"later: not evaluated; run ifvit evaluate .*later first"):
        compare_runs([later])
    with pytest.raises(UserError, match=r"not evaluated at step 7; "):
        compare_runs([early], step=7)
    with pytest.raises(UserError, match=r"early_seed1: is named twice$"):
        compare_runs([early, early])
    (folder,) = (runs_root / "early_seed1/evaluation").iterdir()
    with pytest.raises(UserError, match=rf"^{folder}: is named twice, also as {early}$"):
        compare_runs([early, str(folder)])
    with pytest.raises(UserError, match=r"later: is named twice$"):
        compare_runs([later, later])
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
