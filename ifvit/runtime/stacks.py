"""Where a process's threads are."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from pathlib import Path

from ifvit.runtime.standard_error import try_to_say

SECONDS_TO_WRITE = 10.0  # on a file system that may have stalled


def main_thread_place() -> str:
    """FILE:LINE FUNCTION that the main thread is in."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return "unknown"
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"


def all_stacks() -> bytes:
    """The stacks of all threads as text, made in memory."""
    descriptor = os.memfd_create("stacks")
    with os.fdopen(descriptor, "w+b") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()


def write_stacks(path: Path | None, heading: str) -> None:
    """Write the time, `heading` and all stacks to `path`; to stderr where that is None or takes SECONDS_TO_WRITE."""
    content = f"{time.strftime('%Y-%m-%d %H:%M:%S %z')}: {heading}\n\n".encode() + all_stacks()
    written = threading.Event()

    def write(path: Path) -> None:
        with contextlib.suppress(OSError):
            path.write_bytes(content)
            written.set()

    if path is not None:
        threading.Thread(target=write, args=(path,), daemon=True).start()
        if written.wait(SECONDS_TO_WRITE):
            return
        try_to_say(f"{path}: could not be written")
    try_to_say(content.decode(errors="replace"))
