"""`make gpu-check` on a CPU, at a small size, part by part."""

import json
from pathlib import Path
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
    parts = "attention", "cells", "parity", "loader"
    command("ifvit.benchmark.gpu_check", "--allow-cpu", "--only", *parts, "--out", file)
    content: dict[str, Any] = json.loads(file.read_text())
    assert content.keys() == {"date", "device", "packages", *parts}
    return content


def test_attention_backends_are_measured_or_say_why_not(report: dict[str, Any]) -> None:
    assert {row["backend"] for row in report["attention"] if row["failure"] is None} == {"flash", "sdpa", "math"}
    assert all(row["failure"] or row["max_error"] < 0.1 for row in report["attention"])


def test_the_four_cells_train(report: dict[str, Any]) -> None:
    assert sorted(report["cells"]) == ["concat_early", "concat_intermediate", "cross_early", "cross_intermediate"]
    for cell in report["cells"].values():
        assert (cell["batch_size"], cell["attention_backend"]) == (4, "sdpa")
        assert cell["samples_per_second"] == pytest.approx(4 / cell["seconds_per_step"])


def test_bf16_repeats_and_stays_near_float32(report: dict[str, Any]) -> None:
    assert report["parity"]["bf16_repeats_bit_for_bit"]
    assert 0 < report["parity"]["max_difference_bf16_fp32"] < 0.05


def test_batches_arrive_as_they_were_read(report: dict[str, Any]) -> None:
    assert report["loader"]["failure"] is None and report["loader"]["batches"] == 5


COMMANDS_ALONE = """
import os, sys
from ifvit.benchmark import gpu_check
def failing():
    print(sorted({"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} & os.environ.keys()))
    return {"failure": "it broke"}
gpu_check.check_main_job = failing
gpu_check.check_scenes_cells = lambda cells, **size: {"failure": None, "cells": cells}
sys.exit(gpu_check.main(sys.argv[1:]))
"""


def test_a_part_that_fails_is_the_exit_code_and_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    (tmp_path / "commands_alone.py").write_text(COMMANDS_ALONE)
    monkeypatch.syspath_prepend(tmp_path)
    only = ["--only", "main_job", "scenes_cells"]
    done = command("commands_alone", "--allow-cpu", *only, "--out", tmp_path / "check.json", code=1)
    assert done.stdout.splitlines()[0] == "[]"  # the commands are no ranks of this process's group
    assert "FAILED main_job: it broke" in done.stderr
    report = json.loads((tmp_path / "check.json").read_text())
    assert report["main_job"] == {"failure": "it broke"}
    assert report["scenes_cells"] == {"failure": None, "cells": ["cross_intermediate"]}
    assert "--only: give --out FILE too" in command("commands_alone", "--allow-cpu", *only, code=2).stderr


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
