"""Lines for a disk that is full for a while: none is lost, none is half there, and it is said once."""

import json
import os
from pathlib import Path

import pytest

from ifvit.runtime import run_writer
from ifvit.runtime.beats import Beat
from ifvit.runtime.heartbeat_file import HeartbeatFile
from ifvit.runtime.metrics import MetricsLog
from ifvit.runtime.run_writer import RunWriter
from tests.full_disk import full_disk
from tests.unit.runtime.tracked_run import wait_until

pytestmark = pytest.mark.usefixtures("capsys")  # in memory: standard error would be in a file, on the full disk


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_what_a_full_disk_refuses_is_written_later_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer, metrics, bad_steps = RunWriter(tmp_path), tmp_path / "metrics.jsonl", tmp_path / "bad_steps.jsonl"
    writer.append(metrics, {"step": 1})
    with full_disk(len('{"step": 1}\n{"st')):
        for step in (2, 3):
            writer.append(metrics, {"step": step})
            writer.append(bad_steps, {"step": step})
        assert metrics.read_text() == '{"step": 1}\n'
        assert writer.lines(bad_steps) == [b'{"step": 2}\n', b'{"step": 3}\n']
    writer.append(metrics, {"step": 4})
    assert (steps(metrics), steps(bad_steps)) == ([1, 2, 3, 4], [2, 3])
    assert writer.lines(metrics) == metrics.read_bytes().splitlines(keepends=True)
    writer.close()
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert "metrics and logs CANNOT BE WRITTEN: File too large; training goes on" in told[0]
    assert told[1].endswith("metrics and logs can be written again")


def test_half_a_line_that_could_not_be_taken_back_is_so_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "sa')
    RunWriter(tmp_path).append(path, {"step": 3})
    assert steps(path) == [1, 3]
    path.write_text('{"st')
    RunWriter(tmp_path).append(path, {"step": 4})
    assert steps(path) == [4]


def test_memory_is_bounded_and_what_is_lost_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_writer, "MAX_WAITING", 3)
    writer = RunWriter(tmp_path)
    with full_disk():
        for step in range(5):
            writer.append(tmp_path / f"{step % 2}.jsonl", {"step": step})
        writer.close()
    assert len(writer.waiting) == 3
    assert capsys.readouterr().err.endswith(
        "lines that are lost: 2 of 0.jsonl, 1 of 1.jsonl, 2 for which memory had no place\n"
    )


def test_a_rollback_on_a_full_disk_leaves_each_step_once(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "metrics.discarded.jsonl", writer)
    for step in (10, 20, 30):
        log.append({"step": step})
    with full_disk():
        for step in (40, 50):
            log.append({"step": step})
        log.resume(40)
        assert steps(log.path) == [10, 20, 30]
        log.resume(20)
        assert steps(log.path) == [10, 20]
        log.append({"step": 30})
    writer.close()
    assert steps(log.path) == [10, 20, 30]
    assert sorted(steps(log.discarded_path)) == [30, 40, 50]


def test_heartbeats_go_on_after_an_outage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = []

    def beat(count: int) -> Beat:
        counts.append(count)
        return Beat(0, "host", os.getpid(), count, 0, count, 0, "data", "place", None)

    path = tmp_path / "heartbeat.json"
    heartbeats = HeartbeatFile(path, beat, interval=0.01)
    with full_disk():
        heartbeats.start()
        wait_until(lambda: len(counts) > 2)
    heartbeats.stop()
    assert json.loads(path.read_text())["step"] > 1
    told = capsys.readouterr().err
    assert told.count("heartbeats CANNOT BE WRITTEN: File too large") == told.count("heartbeats can be written") == 1
