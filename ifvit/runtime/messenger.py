"""The thread that exchanges beats with the other ranks. It may hang with the store; nothing waits for it."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ifvit.runtime.beats import Beat, SharedBeats, StoreError

SECONDS_TO_END = 10.0


class Messenger:
    """Every `interval` seconds gives this rank's beat and takes those of the ranks `heard`.

    Attributes:
        num_answers: how often the store has answered.
        beats: the newest of the ranks `heard`.
        verdict: of any rank; empty while there is none.
        own_verdict: to be told to the others.
    """

    def __init__(
        self, shared: SharedBeats, own_beat: Callable[[int], Beat], heard: Sequence[int], interval: float
    ) -> None:
        self.shared = shared
        self.own_beat = own_beat
        self.heard = heard
        self.interval = interval
        self.num_answers = 0
        self.beats: list[Beat] = []
        self.verdict = ""
        self.own_verdict = ""
        self.count = 0
        self.said: dict[str, Any] = {}
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.exchange, name="messenger", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self, **said: Any) -> bool:
        """Give a last beat with the fields `said`; whether that was done in time."""
        self.said = said
        self.ending.set()
        self.thread.join(SECONDS_TO_END)
        return not self.thread.is_alive()

    def exchange(self) -> None:
        while not self.ending.wait(self.interval):
            try:
                self.give()
                if self.own_verdict:
                    self.shared.put_verdict(self.own_verdict)
                self.beats = self.shared.of(self.heard)
                self.verdict = self.shared.verdict()
                self.num_answers += 1
            except StoreError:  # the watchdog counts the answers
                continue
        with contextlib.suppress(StoreError):  # who would hear it is gone
            self.give()

    def give(self) -> None:
        self.count += 1
        self.shared.put(replace(self.own_beat(self.count), **self.said))
