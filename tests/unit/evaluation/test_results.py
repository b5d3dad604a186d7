"""ifvit/evaluation/results.py"""

import json
from pathlib import Path
from typing import Any

import pytest

from ifvit.config.errors import UserError
from ifvit.evaluation.results import FORMAT_VERSION, KEYS, OlderResultsError, newest_evaluation, read_results
from ifvit.runtime.run_directory import RunDirectory
from tests.evaluated_runs import write_results, write_run


def test_the_evaluation_finished_last_is_taken(tmp_path: Path) -> None:
    write_run(tmp_path, "run", quality=None)
    run = RunDirectory(tmp_path / "run")
    assert newest_evaluation(run) is None
    for quality, time, step in ((0.1, "2026-11-22T01", 200), (0.2, "2026-11-22T03", 100), (0.3, "2026-11-22T02", 200)):
        write_results(run.path, quality, time=time, step=step)
    (run.evaluation / "step-00000300-unfinished").mkdir()
    for step, expected in ((None, "2026-11-22T03"), (100, "2026-11-22T03"), (200, "2026-11-22T02")):
        found = newest_evaluation(run, step)
        results = None if found is None else read_results(found)
        assert results is not None and results["time"] == expected
    assert newest_evaluation(run, 300) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"format_version": null}'])
def test_a_file_of_another_kind_is_the_user_s_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=r"results\.json: is no results of `ifvit evaluate`"):
        read_results(tmp_path)


def written(folder: Path) -> dict[str, Any]:
    write_run(folder, "run")
    (file,) = folder.glob("run/evaluation/*/results.json")
    results: dict[str, Any] = json.loads(file.read_text())
    return results


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_required(key: str, tmp_path: Path) -> None:
    results = written(tmp_path)
    del results[key]
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match=rf"results\.json: has no {key}; remove it and evaluate again"):
        read_results(tmp_path)


def test_every_set_of_images_is_required(tmp_path: Path) -> None:
    results = written(tmp_path)
    del results["splits"]["val"]["real"], results["splits"]["unseen"]
    (tmp_path / "results.json").write_text(json.dumps(results))
    missing = r"splits\.val\.real, splits\.unseen\.generated, splits\.unseen\.reconstructions, splits\.unseen\.real;"
    with pytest.raises(UserError, match=f"has no {missing}"):
        read_results(tmp_path)


@pytest.mark.parametrize("version, error", [(1, OlderResultsError), (99, UserError)])
def test_another_format_version_is_refused(version: int, error: type[UserError], tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"format_version": version}))
    with pytest.raises(error, match=rf"results\.json: has format version {version}, .* {FORMAT_VERSION}; "):
        read_results(tmp_path)
