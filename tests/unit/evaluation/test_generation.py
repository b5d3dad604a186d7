"""ifvit/evaluation/generation.py"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from ifvit.config.errors import UserError
from ifvit.evaluation import generation
from ifvit.evaluation.generation import GenerationRecord


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Its `now` is what time.monotonic gives."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(generation, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_seconds_are_those_of_all_starts_and_each_says_where(tmp_path: Path, clock: SimpleNamespace) -> None:
    first = GenerationRecord(tmp_path, {"device": "cuda:0"})
    clock.now += 2
    first.advance(4)
    clock.now += 3
    first.advance(4)
    clock.now += 50  # killed in its third batch, or a pause
    second = GenerationRecord(tmp_path, {"device": "cpu"})
    clock.now += 7
    second.advance(1)
    starts = [
        {"device": "cuda:0", "num_images": 8, "seconds": 5.0},
        {"device": "cpu", "num_images": 1, "seconds": 7.0},
    ]
    assert json.loads((tmp_path / "generation.json").read_text()) == {"starts": starts}
    later = GenerationRecord(tmp_path, {"device": "elsewhere"})  # makes nothing
    assert later.starts == starts
    assert later.seconds(9) == 12.0


def test_what_was_made_without_a_record_is_not_known(tmp_path: Path) -> None:
    record = GenerationRecord(tmp_path, {})
    assert record.seconds(9) is None
    record.advance(4)
    assert record.seconds(9) is None and record.seconds(4) is not None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"starts": [{"seconds": 1}]}', '{"starts": [1]}'])
def test_a_file_of_another_kind_is_the_user_s_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "generation.json").write_text(text)
    with pytest.raises(UserError, match=r"generation\.json: is no record of `ifvit evaluate`; remove it"):
        GenerationRecord(tmp_path, {})
