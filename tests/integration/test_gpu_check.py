"""`make gpu-check` on a CPU, at a small size, part by part."""

import json
from pathlib import Path
from typing import Any

import pytest

from ifvit.benchmark import main_job, scenes_cells
from tests.integration.conftest import Command


def test_without_a_gpu_it_says_so(command: Command) -> None:
    assert "no CUDA GPU here; --allow-cpu" in command("ifvit.benchmark.gpu_check", code=2).stderr


def test_a_batch_of_nothing_is_refused(command: Command) -> None:
    done = command("ifvit.benchmark.gpu_check", "--allow-cpu", "--batch-size", 0, code=2)
    assert "--batch-size: is 0, must be at least 1" in done.stderr


PARTS = (
    "attention", "cells", "backends", "parity", "zero_stages", "promises", "checkpoints", "host_syncs", "loader",
)  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, command: Command) -> dict[str, Any]:
    """Of the parts that need no commands of their own, and no compiler."""
    file = tmp_path_factory.mktemp("report") / "check.json"
    command("ifvit.benchmark.gpu_check", "--allow-cpu", "--only", *PARTS, "--out", file)
    content: dict[str, Any] = json.loads(file.read_text())
    assert content.keys() == {"date", "device", "packages", *PARTS}
    assert all(content[part]["failure"] is None and content[part]["seconds"] > 0 for part in PARTS)
    return content


def test_attention_backends_are_measured_or_say_why_not(report: dict[str, Any]) -> None:
    rows = report["attention"]["rows"]
    assert {row["backend"] for row in rows if row["failure"] is None} == {"flash", "sdpa", "math"}
    assert all(row["failure"] or (row["max_error"] < 0.2 and row["seconds"] > 0) for row in rows)
    assert len({row["shape"] for row in rows}) == 4  # text, image, both, and image that asks both


def test_the_four_cells_train(report: dict[str, Any]) -> None:
    cells = report["cells"]["cells"]
    assert sorted(cells) == ["concat_early", "concat_intermediate", "cross_early", "cross_intermediate"]
    for cell in cells.values():
        assert (cell["batch_size"], cell["precision"], cell["attention_backend"]) == (4, "bf16", "sdpa")
        products = report["cells"]["product_tflops_per_second"]
        assert cell["mfu"] == pytest.approx(cell["model_tflops_per_second"] / products)


def test_a_step_is_timed_with_each_backend_that_is_right_here(report: dict[str, Any]) -> None:
    (cell,) = report["backends"]["cells"].values()
    assert {name: each["attention_backend"] for name, each in cell["backends"].items()} == {
        name: name for name in ("flash", "sdpa", "math")
    }
    assert cell["fastest"] in cell["backends"]
    assert cell["unavailable"].keys() == {"xformers", "cudnn", "efficient"}
    assert cell["unavailable"]["xformers"] == "xformers needs a CUDA GPU"


def test_bf16_repeats_and_stays_near_float32(report: dict[str, Any]) -> None:
    assert report["parity"]["bf16_repeats_bit_for_bit"]
    assert 0 < report["parity"]["max_difference_bf16_fp32"] < 0.05


def test_zero_stages_give_the_same_losses_that_fall(report: dict[str, Any]) -> None:
    zero_stages = report["zero_stages"]
    for stages in (zero_stages["max_difference_from_stage_1"], zero_stages["fall"]):
        assert {precision: sorted(of_stages) for precision, of_stages in stages.items()} == {
            "fp32": ["0", "1", "2", "3"],
            "bf16": ["1", "2", "3"],
        }


def test_promises_are_kept_bit_for_bit(report: dict[str, Any]) -> None:
    checks = report["promises"]["checks"]
    assert [name.partition(",")[0] for name in checks] == [
        "skipped updates",
        "averages",
        "saved and resumed",
        "digests",
    ]
    assert set(checks.values()) == {None}


def test_saves_are_timed(report: dict[str, Any]) -> None:
    checkpoints = report["checkpoints"]
    for kind in ("asynchronous_stall", "asynchronous_save", "synchronous_save"):
        assert len(checkpoints[f"{kind}_seconds"]) == 1
    assert checkpoints["asynchronous_stall_seconds"] < checkpoints["asynchronous_save_seconds"]


def test_batches_arrive_as_they_were_read(report: dict[str, Any]) -> None:
    assert report["loader"]["batches"] == 5


FEIGNED_PARTS = """
import os, sys, time
from ifvit.benchmark import gpu_check
def failing(device, sizes):
    print(sorted({"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} & os.environ.keys()))
    return {"failure": "it broke"}
def raising(device, sizes):
    raise ValueError("of no use")
def endless(device, sizes):
    print(sorted({"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} & os.environ.keys()), flush=True)
    time.sleep(100)
feigned = {"loader": raising, "main_job": failing, "scenes_cells": endless}
for parts in (gpu_check.PARTS, gpu_check.FIRST_COMMANDS, gpu_check.MEASUREMENTS, gpu_check.LAST_COMMANDS):
    parts.update({part: feigned[part] for part in parts.keys() & feigned.keys()})
sys.exit(gpu_check.main(sys.argv[1:]))
"""


def test_parts_that_fail_or_have_no_time_left_are_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    (tmp_path / "feigned_parts.py").write_text(FEIGNED_PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    only = ["--only", "loader", "main_job", "scenes_cells"]
    file = tmp_path / "check.json"
    done = command("feigned_parts", "--allow-cpu", "--seconds", 2, *only, "--out", file, code=1)
    assert done.stdout.splitlines()[:2] == ["[]", "[]"]  # the commands are no ranks of this process's group
    assert "FAILED loader: ValueError: of no use" in done.stderr and "FAILED main_job: it broke" in done.stderr
    report = json.loads(file.read_text())
    assert report["main_job"]["failure"] == "it broke"
    assert report["scenes_cells"]["result"] == "not run: no time left"
    assert 0 < report["scenes_cells"]["seconds"] < 60
    assert "--only: give --out FILE too" in command("feigned_parts", "--allow-cpu", *only, code=2).stderr


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
