"""The file in which a rank says where it is, for people and for other programs. Nothing waits for it."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ifvit.runtime.beats import Beat
from ifvit.runtime.outage import Outage

NUM_BYTES = 512  # of the file, always: it is written over in place, in one piece
SECONDS_TO_END = 2.0


class HeartbeatFile:
    """Writes this rank's beat to `path` every `interval` seconds, from a thread, from `start` to `stop`."""

    def __init__(self, path: Path, own_beat: Callable[[int], Beat], interval: float) -> None:
        self.path = path
        self.own_beat = own_beat
        self.interval = interval
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.write_all, name="heartbeat file", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """Writes a last beat, unless the file system has stalled."""
        self.ending.set()
        self.thread.join(SECONDS_TO_END)

    def write_all(self) -> None:
        outage = Outage(f"{self.path}: heartbeats", "without them")
        with ExitStack() as stack:
            file = None
            count = 0
            is_last = False
            while True:
                with outage.survived():
                    file = file or stack.enter_context(self.path.open("wb", buffering=0))
                    file.seek(0)
                    file.write(self.line(count))
                if is_last:
                    return
                is_last = self.ending.wait(self.interval)
                count += 1

    def line(self, count: int) -> bytes:
        beat = self.own_beat(count)
        values = {"step": beat.step, "phase": beat.phase, "host": beat.host, "pid": beat.pid, "rank": beat.rank}
        text = json.dumps(values | {"time": round(time.time(), 3), "place": beat.place}, ensure_ascii=True)
        return text.encode()[: NUM_BYTES - 1].ljust(NUM_BYTES - 1) + b"\n"
