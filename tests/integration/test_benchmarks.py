"""`ifvit bench step`, `engine` and `hooks` on a tiny recipe: what they print, not how fast it is."""

import json
from pathlib import Path

import pytest
import yaml

from tests.drawn_coco import tiny_values
from tests.integration.conftest import Command


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without shards: batches are synthetic."""
    file = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny_values(Path("/nowhere"), Path("/nowhere"))))
    return file


def test_steps_are_told_in_their_parts(recipe: Path, command: Command) -> None:
    size = ["--windows", 2, "--steps", 2, "--batch-size", 2]
    done = command("ifvit", "bench", "step", recipe, recipe, *size, "--set", "train.precision=bf16", "--json")
    report = json.loads(done.stdout)
    assert (report["windows"], report["steps_per_window"]) == (2, 2)
    assert list(report["cells"]) == ["tiny", "tiny #2"]
    for cell in report["cells"].values():
        parts = [cell[f"{part}_seconds"] for part in ("forward", "backward", "optimizer", "ema")]
        assert min(parts) > 0 and cell["best_step_seconds"] <= cell["step_seconds"]
        assert cell["samples_per_second"] == pytest.approx(2 / cell["step_seconds"])
        assert (cell["precision"], cell["zero_stage"], cell["attention_backend"]) == ("bf16", 1, "sdpa")
    assert report["cells"]["tiny"]["ratio_to_first"] == 1


def test_deepspeed_is_compared_with_a_plain_loop(recipe: Path, command: Command) -> None:
    size = ["--windows", 2, "--steps", 2, "--cases", "0:2,1:4"]  # before the recipe, which is not one of them
    report = json.loads(command("ifvit", "bench", "engine", "--json", *size, recipe).stdout)
    assert [(case["zero_stage"], case["batch_size"]) for case in report["cases"]] == [(0, 2), (1, 4)]
    for case in report["cases"]:
        best = {name: loop["best_step_seconds"] for name, loop in case["loops"].items()}
        assert case["ratio_of_bests"] == pytest.approx(best["deepspeed"] / best["plain"])
        assert case["control_ratio"] == pytest.approx(best["plain again"] / best["plain"])


def test_watching_and_saving_are_timed(recipe: Path, tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "folder"
    size = ["--windows", 2, "--steps", 4, "--saves", 2, "--batch-size", 2]
    report = json.loads(command("ifvit", "bench", "hooks", recipe, "--folder", folder, *size, "--json").stdout)
    assert 0 < report["hooks_share"] < 1
    assert report["overhead"] > -1 and report["overhead_standard_error"] >= 0
    assert len(report["asynchronous_stall_seconds"]) == len(report["synchronous_save_seconds"]) == 2
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [4, 8, 12]  # one in each watched window
    assert all("seconds_forward" in json.loads(line) for line in lines)  # and a step in its parts
    assert (folder / "logs/heartbeat-rank-00000.json").is_file()
    again = command("ifvit", "bench", "hooks", recipe, "--folder", folder, code=2).stderr
    assert "is not empty; give another folder" in again


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["step", "--windows", 0], "--windows: is 0, must be at least 1"),
        (["step", "--batch-size", 0], "--batch-size: is 0, must be at least 1"),
        (["hooks", "--folder", "/nowhere", "--windows", 1], "--windows: is 1, must be at least 2"),
        (["engine", "--steps", 0], "--steps: is 0, must be at least 1"),
        (["engine", "--set", "train.max_grad_norm=1.0"], "compare with --set train.max_grad_norm=null"),
        (["engine", "--cases", "0:2,4:2"], "--cases: 0:2,4:2 is not STAGE:BATCH, or several with commas"),
    ],
)
def test_mistakes_are_told(arguments: list[object], message: str, recipe: Path, command: Command) -> None:
    verb, *options = arguments
    assert message in command("ifvit", "bench", verb, recipe, *options, code=2).stderr
