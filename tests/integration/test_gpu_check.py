"""`make gpu-check` on a CPU, at a small size: what it would write on a GPU is there."""

import json
from typing import Any

import pytest

from ifvit.benchmark import main_job, scenes_cells
from tests.integration.conftest import Command


def test_without_a_gpu_it_says_so(command: Command) -> None:
    assert "no CUDA GPU here; --allow-cpu" in command("ifvit.benchmark.gpu_check", code=2).stderr


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, command: Command) -> dict[str, Any]:
    """Of the parts that need no commands of their own."""
    file = tmp_path_factory.mktemp("report") / "check.json"
    parts = "attention", "cells", "parity"
    command("ifvit.benchmark.gpu_check", "--allow-cpu", "--only", *parts, "--out", file)
    content: dict[str, Any] = json.loads(file.read_text())
    assert content.keys() == {"date", "device", "packages", *parts}
    return content


def test_attention_backends_are_measured_or_say_why_not(report: dict[str, Any]) -> None:
    assert {row["backend"] for row in report["attention"] if row["failure"] is None} == {"sdpa", "math"}
    assert all(row["failure"] or row["max_error"] < 0.05 for row in report["attention"])


def test_the_four_cells_train(report: dict[str, Any]) -> None:
    assert sorted(report["cells"]) == ["concat_early", "concat_intermediate", "cross_early", "cross_intermediate"]
    assert all(cell["seconds_per_step"] > 0 for cell in report["cells"].values())


def test_bf16_repeats_and_stays_near_float32(report: dict[str, Any]) -> None:
    assert report["parity"]["bf16_repeats_bit_for_bit"]
    assert 0 < report["parity"]["max_difference_bf16_fp32"] < 0.05


def test_the_main_job_resumes_bit_for_bit(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_job, "call", command)
    checked = main_job.check_main_job()
    assert checked["failure"] is None and checked["resumes_bit_for_bit"] and len(checked["losses"]) == main_job.STEPS


def test_the_cells_on_scenes_are_compared(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes_cells, "call", command)
    size = {"steps": 2, "batch_size": 4, "num_images": 4, "precision": "bf16"}
    checked = scenes_cells.check_scenes_cells(["cross_intermediate"], **size)
    assert checked["failure"] is None
    assert [run["run"] for run in checked["comparison"]["runs"]] == ["scenes_cross_intermediate"]


def test_a_command_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_job, "train_twice", lambda folder: main_job.call("ifvit", "validate", "/nowhere"))
    failure = main_job.check_main_job()["failure"]
    assert failure.startswith("ifvit validate /nowhere: error: ")
