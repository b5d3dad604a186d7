"""ifvit/reporting/training_cost.py"""

import json
from pathlib import Path
from typing import Any

import pytest

from ifvit.reporting.training_cost import TrainingCost, training_cost, training_hardware
from ifvit.runtime.run_directory import RunDirectory


def write_metrics(folder: Path, *records: tuple[int, float, float | None]) -> RunDirectory:
    """Of (step, samples per second, loss) at a batch of 2."""
    lines = (
        {"step": step, "samples_seen": 2 * step, "samples_per_second": speed, "loss": loss}
        for step, speed, loss in records
    )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return RunDirectory(folder)


def test_median_speed_summed_time_and_mean_of_the_last_losses(tmp_path: Path) -> None:
    run = write_metrics(tmp_path, (10, 4.0, 9.0), (20, 2.0, 9.0), *((20 + k, 8.0, float(k)) for k in range(1, 11)))
    cost = training_cost(run, global_batch_size=2)
    assert cost.steps_per_second == pytest.approx(8.0 / 2)
    assert cost.seconds == pytest.approx(20 / 4 + 20 / 2 + 10 * 2 / 8)
    assert cost.loss == pytest.approx(5.5)


def test_only_what_led_to_the_checkpoint_counts(tmp_path: Path) -> None:
    run = write_metrics(tmp_path, (10, 4.0, 1.0), (20, 2.0, 0.5), (30, 1.0, 0.1))
    assert training_cost(run, 2, last_step=20) == TrainingCost(1.5, 15.0, 0.75)


def test_a_loss_that_was_not_finite_does_not_count(tmp_path: Path) -> None:
    assert training_cost(write_metrics(tmp_path, (10, 4.0, 1.0), (20, 2.0, None)), 2).loss == 1.0
    assert training_cost(write_metrics(tmp_path, (10, 4.0, None)), 2).loss is None


def test_nothing_logged(tmp_path: Path) -> None:
    assert training_cost(RunDirectory(tmp_path), 2) == TrainingCost(None, None, None)
    assert training_hardware(RunDirectory(tmp_path)) == "unknown"


@pytest.mark.parametrize(
    "attempt, expected",
    [
        ({"device": "cuda:0", "world_size": 2, "gpus": ["NVIDIA H200"]}, "2 x NVIDIA H200"),
        ({"device": "cpu", "world_size": 1, "gpus": ["unused"], "cpu": {"model": "Xeon"}}, "1 CPU process(es), Xeon"),
    ],
)
def test_hardware_is_what_a_start_ran_on(attempt: dict[str, Any], expected: str, tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text(json.dumps({"attempts": [attempt, attempt]}))
    assert training_hardware(RunDirectory(tmp_path)) == expected


def test_all_hardware_that_led_to_the_checkpoint_is_named(tmp_path: Path) -> None:
    attempts = [
        {"device": "cuda:0", "world_size": 2, "gpus": [name], "first_step": first_step}
        for name, first_step in (("NVIDIA H200", 0), ("NVIDIA A100", 100), ("NVIDIA H200", 200), ("NVIDIA L4", 300))
    ]
    (tmp_path / "environment.json").write_text(json.dumps({"attempts": attempts}))
    run = RunDirectory(tmp_path)
    assert training_hardware(run, last_step=300) == "2 x NVIDIA H200 and 2 x NVIDIA A100"
    assert training_hardware(run, last_step=100) == "2 x NVIDIA H200"
    assert training_hardware(run) == "2 x NVIDIA H200 and 2 x NVIDIA A100 and 2 x NVIDIA L4"
