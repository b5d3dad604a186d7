"""ifvit/evaluation/results.py"""

from pathlib import Path

import pytest

from ifvit.config.errors import UserError
from ifvit.evaluation.results import newest_results, read_results
from ifvit.runtime.run_directory import RunDirectory
from tests.evaluated_runs import write_results, write_run


def test_the_evaluation_finished_last_is_taken(tmp_path: Path) -> None:
    write_run(tmp_path, "run", quality=None)
    run = RunDirectory(tmp_path / "run")
    assert newest_results(run) is None
    for quality, time, step in ((0.1, "2026-11-22T01", 200), (0.2, "2026-11-22T03", 100), (0.3, "2026-11-22T02", 200)):
        write_results(run.path, quality, time=time, step=step)
    (run.evaluation / "step-00000300-unfinished").mkdir()
    for step, expected in ((None, 100), (100, 100), (200, 200)):
        found = newest_results(run, step)
        assert found is not None and found["checkpoint"]["step"] == expected
    newest = newest_results(run, 200)
    assert newest is not None and newest["time"] == "2026-11-22T02"
    assert newest_results(run, 300) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense"])
def test_a_file_of_another_kind_is_the_user_s_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=r"results\.json: is no results of `ifvit evaluate`"):
        read_results(tmp_path)


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"format_version": 99}')
    with pytest.raises(UserError, match=r"results\.json: has format version 99, not 1"):
        read_results(tmp_path)
