"""The metrics of a run: one JSON object per line, appended, never changed. This is the truth, MLflow only a view.

A number that was not finite is null.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifvit.config.errors import UserError
from ifvit.runtime.run_writer import RunWriter


class MetricsLog:
    """Appends to `path`; what a resumed run does anew moves to `discarded_path`. Only rank 0 may hold one."""

    def __init__(self, path: Path, discarded_path: Path, writer: RunWriter) -> None:
        self.path = path
        self.discarded_path = discarded_path
        self.writer = writer

    def resume(self, step: int) -> None:
        """Keep the lines up to `step`, the checkpoint's. Later lines, and a half-written last one of a killed process,
        move to `discarded_path`. Raises UserError where an earlier line is damaged."""
        written = self.path.read_bytes().splitlines(keepends=True) if self.path.is_file() else []
        waiting = self.writer.take_waiting(self.path)  # at a rollback on a full disk
        num_kept = len(written)
        for number, line in enumerate(written, start=1):
            record = parsed(line)
            if record is None and number < len(written):
                raise UserError(f"{self.path}: line {number} is no JSON object with a step; restore or remove the file")
            if record is None or record["step"] > step:
                num_kept = min(num_kept, number - 1)  # steps only grow
        for line in written[num_kept:]:
            self.writer.append_line(self.discarded_path, line if line.endswith(b"\n") else line + b"\n")
        if num_kept < len(written):
            os.truncate(self.path, sum(map(len, written[:num_kept])))  # needs no space, whatever the disk has left
        for line in waiting:
            is_later = json.loads(line)["step"] > step
            self.writer.append_line(self.discarded_path if is_later else self.path, line)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write `record` as one line; it must hold an integer `step`."""
        self.writer.append(self.path, record)


def read_metrics(path: Path, position: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The records from byte `position` on, oldest first, and the position behind the last whole line.

    A half-written last line, which its writer may just be finishing, is left for the next call.
    """
    if not path.is_file():
        return [], position
    with path.open("rb") as file:
        file.seek(position)
        lines = file.read().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    records = [record for line in whole if (record := parsed(line)) is not None]
    return records, position + sum(map(len, whole))


def read_last_metrics(path: Path, num_bytes: int = 65_536) -> list[dict[str, Any]]:
    """The records in the last `num_bytes` of the file, oldest first: enough for a glance at a run of any length."""
    if not path.is_file():
        return []
    start = max(0, path.stat().st_size - num_bytes)
    records, _ = read_metrics(path, start)  # of a line that begins before `start` the rest is no record
    return records


def parsed(line: bytes) -> dict[str, Any] | None:
    """`line` as a record, or None if it is not a whole one."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(record, dict) and isinstance(record.get("step"), int) and line.endswith(b"\n")
    return record if whole else None
