"""One rank's share of a checkpoint on disk: a file for each kind, and a report of them for rank 0."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ifvit.checkpoint.daemon_threads import in_daemon_threads
from ifvit.checkpoint.host_buffer import HostBuffer
from ifvit.checkpoint.layout import rank_file, report_file, tensor_key
from ifvit.checkpoint.tensor_file import write_tensor_file
from ifvit.data.sealed_json import sealed_json
from ifvit.runtime.fault_injection import fault_point
from ifvit.runtime.files import write_atomically

WRITING_THREADS = 2  # digests cost as much time as writing does
Tell = Callable[[str], None]  # told what is being done or waited for


def write_share(folder: Path, buffer: HostBuffer, rank: int, step: int, tell: Tell) -> None:
    """Write what `buffer` holds. Whatever the report names is on the disk. Raises as write_tensor_file does."""

    def write(kind: str) -> tuple[str, dict[str, Any]]:
        name = rank_file(rank, kind)
        tell(f"writing {folder / name}")
        fault_point("checkpoint.write", step)
        entries = [(tensor_key(kind, piece.name), piece.numel) for piece in buffer.pieces]
        written = write_tensor_file(folder / name, entries, buffer.rows[kind])
        fault_point("checkpoint.file_written", step)
        return name, written

    tell(f"making {folder}")
    folder.mkdir(exist_ok=True)  # by the first rank that comes; a run's folder that was removed is not made again
    files = dict(in_daemon_threads(write, list(buffer.rows), WRITING_THREADS))
    parts = [(piece.name, piece.start, piece.numel) for piece in buffer.pieces]
    write_atomically(folder / report_file(rank), sealed_json({"files": files, "parts": parts}))
