"""What a grid that cannot be written, or shown, does to a run. What grids show: tests/integration."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch.distributed as dist

from ifvit.runtime.distributed import Ranks
from ifvit.sampling.preview import PreviewHook
from ifvit.training.state import TrainState
from tests.unit.training.step_results import recipe_of, result_of


class Black:
    """What the hook asks of a sampler and of the averaged model."""

    decay = 0.9

    def gather(self) -> None: ...

    def sample(self, prompts: tuple[str, ...], seed: int) -> list[np.ndarray]:
        return [np.zeros((32, 32, 3), np.uint8) for _ in prompts]


def refuse(path: Path, step: int) -> None:
    raise OSError(f"nobody shows {path.name}")


def write_first_grid(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "all_gather_object", lambda everyones, mine: everyones.__setitem__(0, mine))
    black = cast(Any, Black())
    hook = PreviewHook(folder, recipe_of("sampling.prompts=[a cat]"), black, black, Ranks(), refuse)
    hook.on_step(TrainState(step=hook.recipe.sampling.every_steps), result_of())


def test_an_error_of_who_hears_of_a_grid_is_not_the_disk_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OSError, match=r"nobody shows step-00010000\.png"):
        write_first_grid(tmp_path, monkeypatch)
    assert capsys.readouterr().err == ""


def test_nobody_hears_of_a_grid_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_first_grid(tmp_path / "gone", monkeypatch)
    assert "gone: sample grids CANNOT BE WRITTEN: No such file" in capsys.readouterr().err
