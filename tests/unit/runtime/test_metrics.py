"""metrics.jsonl: nothing is lost, and a resumed run leaves no step twice."""

import json
import math
from pathlib import Path

import pytest

from ifvit.config.errors import UserError
from ifvit.runtime.metrics import MetricsLog, read_last_metrics, read_metrics
from ifvit.runtime.run_writer import RunWriter


@pytest.fixture
def log(tmp_path: Path) -> MetricsLog:
    return MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "metrics.discarded.jsonl", RunWriter(tmp_path))


def steps(path: Path) -> list[int]:
    return [record["step"] for record in read_metrics(path)[0]]


def test_a_line_is_in_the_file_when_append_returns(log: MetricsLog) -> None:
    log.append({"step": 10, "loss": 0.1})
    assert log.path.read_text() == '{"step": 10, "loss": 0.1}\n'
    log.append({"step": 20, "loss": 1 / 3})
    assert [json.loads(line)["loss"] for line in log.path.read_text().splitlines()] == [0.1, 1 / 3]


def test_a_number_that_is_not_finite_is_null(log: MetricsLog) -> None:
    log.append({"step": 10, "loss": math.nan, "grad_norm": math.inf, "bad_steps": 1})
    assert log.path.read_text() == '{"step": 10, "loss": null, "grad_norm": null, "bad_steps": 1}\n'


def test_resume_moves_what_is_done_anew(log: MetricsLog) -> None:
    for step in (10, 20, 30, 40):
        log.append({"step": step})
    log.resume(20)
    assert steps(log.path) == [10, 20]
    assert steps(log.discarded_path) == [30, 40]
    log.append({"step": 30})
    log.resume(10)
    assert steps(log.path) == [10]
    assert steps(log.discarded_path) == [30, 40, 20, 30]


def test_resume_moves_the_half_written_line_of_a_killed_process(log: MetricsLog) -> None:
    log.append({"step": 10})
    with log.path.open("a") as file:
        file.write('{"step": 20, "lo')
    log.resume(100)
    log.append({"step": 20})
    assert steps(log.path) == [10, 20]
    assert log.discarded_path.read_text() == '{"step": 20, "lo\n'


def test_a_last_line_without_its_end_may_be_cut_inside_a_number(log: MetricsLog) -> None:
    log.path.write_text('{"step": 10}\n{"step": 20}')
    log.resume(100)
    log.append({"step": 20})
    assert steps(log.path) == [10, 20]


def test_resume_without_a_file_starts_one(log: MetricsLog) -> None:
    log.resume(0)
    assert not log.path.exists()
    assert not log.discarded_path.exists()


def test_a_damaged_line_in_the_middle_is_the_users_to_look_at(log: MetricsLog) -> None:
    log.path.write_text('{"step": 10}\ngarbage\n{"step": 20}\n')
    with pytest.raises(UserError, match="line 2 is no JSON object"):
        log.resume(100)
    assert log.path.read_text().count("\n") == 3


def test_reading_goes_on_where_it_stopped(log: MetricsLog) -> None:
    log.append({"step": 10})
    records, position = read_metrics(log.path)
    assert [record["step"] for record in records] == [10]
    with log.path.open("a") as file:
        file.write('{"step": 2')
    assert read_metrics(log.path, position) == ([], position)
    with log.path.open("a") as file:
        file.write('0}\n{"step": 30}\n')
    records, position = read_metrics(log.path, position)
    assert [record["step"] for record in records] == [20, 30]
    assert position == log.path.stat().st_size


def test_the_last_records_are_found_without_reading_all(log: MetricsLog) -> None:
    assert read_last_metrics(log.path) == []
    for step in range(101, 201):
        log.append({"step": step, "loss": 0.5})
    length = len('{"step": 100, "loss": 0.5}\n')
    assert [record["step"] for record in read_last_metrics(log.path, 2 * length)] == [199, 200]
    assert [record["step"] for record in read_last_metrics(log.path, 2 * length - 1)] == [200]
    assert len(read_last_metrics(log.path)) == 100
    with log.path.open("a") as file:
        file.write('{"step": 201')  # its writer is just writing it
    assert read_last_metrics(log.path, 3 * length)[-1]["step"] == 200
