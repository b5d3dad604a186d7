"""The planner against real DeepSpeed steps, and the recipes that come with a plan in real steps."""

import json
from pathlib import Path

import pytest

from ifvit.commands.main import main
from tests.distributed.planned_training import planned_and_measured, two_steps
from tests.distributed.rank_pool import RankPool

DEMO = Path(__file__).parents[2] / "recipes/demo.yaml"
SCALE = Path(__file__).parents[2] / "recipes/scale"
# Most of it state and buckets; most of it activations; both, with gradients of earlier micro-batches.
STATE_HEAVY = ["model.hidden_size=256", "model.depth=2"]
ACTIVATIONS_HEAVY = ["model.sample_size=32", "model.hidden_size=32", "train.global_batch_size=8"]
BALANCED = ["model.sample_size=16", "model.hidden_size=96", "model.depth=6", "train.global_batch_size=8"]
REDUCED = [
    "data.shards_root=nowhere",
    "model.sample_size=4",
    "model.num_text_tokens=12",
    "model.text_hidden_size=64",
    "train.global_batch_size=2",
    "train.micro_batch_size=1",
]


@pytest.mark.parametrize("shape", [STATE_HEAVY, ACTIVATIONS_HEAVY, BALANCED], ids=["state", "activations", "both"])
@pytest.mark.parametrize("precision, stage", [("fp32", 0), ("fp32", 1), ("bf16", 1), ("bf16", 2), ("bf16", 3)])
def test_memory_is_as_planned(
    pools: dict[int, RankPool], tmp_path: Path, precision: str, stage: int, shape: list[str]
) -> None:
    overrides = [*shape, f"train.precision={precision}", f"runtime.zero_stage={stage}", "train.micro_batch_size=2"]
    rows, _ = pools[2].run(planned_and_measured, overrides=overrides, folder=tmp_path)
    errors = {row.name: row.error for row in rows if row.unit == "MB"}
    for part in ("weights", "fp32 master", "Adam moments", "EMA"):
        assert abs(errors[part]) < 0.02, part  # padding
    if shape is ACTIVATIONS_HEAVY:  # stage 3 may leave weights gathered, too
        assert abs(errors["activations that forward keeps"]) < 0.1
    assert abs(errors["all of these"]) < 0.1


@pytest.mark.parametrize("size", ["m", "l", "h", "xl", "xxl"])
def test_each_size_trains(pools: dict[int, RankPool], size: str) -> None:
    path = SCALE / f"{size}.yaml"
    num_heads = {"m": 12, "l": 16, "h": 16, "xl": 24, "xxl": 32}[size]
    for outcome in pools[2].run(two_steps, recipe=path, overrides=[*REDUCED, f"model.hidden_size={2 * num_heads}"]):
        assert outcome["is_finite"]
        assert min(outcome["moved"]) > 0


def test_the_command_checks_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Steps in a process of its own, as a user asks for them."""
    sizes = ["train.global_batch_size=2", "train.micro_batch_size=1", "runtime.zero_stage=1"]
    overrides = [part for setting in sizes for part in ("--set", setting)]
    assert main(["plan", str(DEMO), *overrides, "--check", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["check"]}
    assert rows["fp32 master"]["measured"] > 0
    assert abs(rows["all of these"]["error"]) < 0.1
    assert abs(rows["a checkpoint's tensors on disk"]["error"]) < 0.02
    assert rows["step"]["measured"] > 0
