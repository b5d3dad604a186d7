"""When the checkpoint hook saves. What it saves: tests/distributed."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from ifvit.checkpoint.hook import CheckpointHook
from ifvit.checkpoint.layout import saved_steps
from ifvit.runtime.distributed import Ranks
from ifvit.training.ema import Ema
from ifvit.training.fragments import Fragment
from ifvit.training.state import TrainState
from tests.drawn_coco import tiny_recipe
from tests.unit.training.step_results import result_of


class PlainEngine:
    """What the hook asks of an engine."""

    is_sharded = False

    def __init__(self) -> None:
        self.module = nn.Linear(2, 3)
        named = self.module.named_parameters()
        self.fragments = [Fragment(name, 0, p.data.view(-1), p, 0) for name, p in named]

    def moment(self, fragment: Fragment, key: str) -> Tensor:
        return torch.zeros_like(fragment.weight)

    def optimizer_step(self) -> int:
        return 0


def hook_of(folder: Path, *, is_good: bool = True) -> CheckpointHook:
    """It saves every fourth step."""
    engine = cast(Any, PlainEngine())
    recipe = tiny_recipe(folder, folder, "checkpoint.every_steps=4")
    return CheckpointHook(folder, recipe, engine, Ema(engine.fragments, [0.9]), Ranks(), lambda state: is_good)


@pytest.mark.parametrize(
    ("step", "stop_reason", "is_good", "steps"),
    [
        (3, None, True, []),
        (4, None, True, [4]),
        (4, None, False, []),
        (3, "SIGTERM on rank 0", True, [3]),
        (3, "SIGTERM on rank 0", False, []),
    ],
)
def test_a_step_is_saved_where_it_is_due_and_where_the_run_is_to_stop(
    tmp_path: Path, step: int, stop_reason: str | None, is_good: bool, steps: list[int]
) -> None:
    """Before on_stop: hooks behind this one may take as long as there is to live."""
    hook = hook_of(tmp_path, is_good=is_good)
    hook.on_start(TrainState())
    state = TrainState(step=step, stop_reason=stop_reason)
    assert hook.is_due(state) or not steps
    hook.on_step(state, result_of())
    hook.finish()
    assert saved_steps(tmp_path) == steps
    hook.on_stop(state)
    assert saved_steps(tmp_path) == [step]


def test_a_save_may_take_longer_than_a_step_and_less_than_the_watchdog_allows(tmp_path: Path) -> None:
    """The watchdog gives saves ten times its seconds, 120 s by default."""
    assert hook_of(tmp_path).saver.patience_seconds == 600
