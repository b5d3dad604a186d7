"""ifvit/checkpoint/resume.py: what is said where a checkpoint does not fit. That it fits: tests/distributed."""

from dataclasses import replace
from pathlib import Path

import pytest

from ifvit.checkpoint.load import newest_checkpoint
from ifvit.checkpoint.manifest import recipe_sha256
from ifvit.checkpoint.resume import say_other_recipe
from ifvit.runtime.distributed import Ranks
from tests.drawn_coco import tiny_recipe
from tests.saved_states import make_saver, save


def test_another_recipe_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, other = (tiny_recipe(tmp_path, tmp_path, f"seed={seed}") for seed in (1, 2))
    saver = make_saver(tmp_path)
    saver.contents = replace(saver.contents, recipe_sha256=recipe_sha256(recipe))
    save(saver, 1)
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    say_other_recipe(checkpoint, recipe, Ranks())
    say_other_recipe(checkpoint, other, Ranks(1, 1, 2))
    assert capsys.readouterr().err == ""
    say_other_recipe(checkpoint, other, Ranks())
    assert "step-00000001: was saved with another recipe" in capsys.readouterr().err
