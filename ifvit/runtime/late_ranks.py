"""Which ranks the others wait for, from the beats as they come in. No clocks of two machines are compared."""

import math
from collections.abc import Sequence

from ifvit.runtime.beats import Beat

STEPS_PATIENCE = 10  # in medians of a step
LONG_PHASE_PATIENCE = 10  # times runtime.watchdog_seconds
COLLECTIVE_PATIENCE = 2 * LONG_PHASE_PATIENCE  # likewise: for collective operations, so that the watchdog is first
MAX_FAILURE_SECONDS = 30.0  # after a failure the others, who may hang in a collective operation, are ended so soon


class LateRanks:
    """What is known of each rank, on the clock of the one who listens.

    Args:
        watchdog_seconds: after which a rank is late; STEPS_PATIENCE times its median step where that is longer.
        long_phases: in which, as before its first step is done, a rank has LONG_PHASE_PATIENCE times as long.
        endless_phases: in which a rank is never late while it gives signs of life.
    """

    def __init__(
        self, world_size: int, watchdog_seconds: float, long_phases: Sequence[str], endless_phases: Sequence[str]
    ) -> None:
        self.watchdog_seconds = watchdog_seconds
        self.long_phases = long_phases
        self.endless_phases = endless_phases
        self.beats: dict[int, Beat] = {}
        self.silent = [0.0] * world_size  # seconds since the last sign of life
        self.stuck = [0.0] * world_size  # seconds in one place, or since its failure

    def hear(self, beats: Sequence[Beat], elapsed: float) -> None:
        """`elapsed` seconds after the last time, these are the newest beats."""
        for beat in beats:
            before = self.beats.get(beat.rank)
            is_alive = before is None or beat.count != before.count
            self.silent[beat.rank] = 0.0 if is_alive else self.silent[beat.rank] + elapsed
            is_further = before is None or (beat.position, beat.failure) != (before.position, before.failure)
            self.stuck[beat.rank] = 0.0 if is_further else self.stuck[beat.rank] + elapsed
            self.beats[beat.rank] = beat

    def late(self) -> list[str]:
        """A line for each rank that the others have waited for too long; empty: none."""
        if lost := self.lost():
            return lost
        present = self.present()
        last_position = min((beat.position for beat in present), default=None)
        last = [beat for beat in present if beat.position == last_position]
        if any(self.stuck[beat.rank] < self.limit(beat) for beat in last):
            return []
        return self.silent_for(self.watchdog_seconds / 2) or [
            f"{beat.name} does not get on: {self.stuck[beat.rank]:.0f} s in {beat.where}" for beat in last
        ]

    def lost(self) -> list[str]:
        """A line for the first rank that failed, some time ago, or for each that is silent; empty: all are alive."""
        if any(beat.failure and self.stuck[beat.rank] >= self.failure_seconds for beat in self.present()):
            return self.failed()
        return self.silent_for(self.watchdog_seconds)

    def silent_for(self, seconds: float) -> list[str]:
        """A line for each rank without a sign of life for so long; not for those that told of their failure."""
        return [
            f"{beat.name} gave no sign of life for {self.silent[beat.rank]:.0f} s, last seen in {beat.where}"
            for beat in self.present()
            if self.silent[beat.rank] >= seconds and not beat.failure
        ]

    def failed(self, before: float = math.inf) -> list[str]:
        """A line for the first rank that an error ended, if that was `before` the failure of this order."""
        failures = [beat for beat in self.present() if beat.failure and beat.failure_order < before]
        failures.sort(key=lambda beat: beat.failure_order)
        return [f"{beat.name} failed in {beat.where}: {beat.failure}" for beat in failures[:1]]

    def present(self) -> list[Beat]:
        return [beat for beat in self.beats.values() if not beat.has_left]

    @property
    def failure_seconds(self) -> float:
        return min(self.watchdog_seconds, MAX_FAILURE_SECONDS)

    def limit(self, beat: Beat) -> float:
        """Seconds that a rank may be in the place that it is in."""
        if beat.phase in self.endless_phases:
            return math.inf
        if beat.step_seconds is None:
            return LONG_PHASE_PATIENCE * self.watchdog_seconds
        patience = LONG_PHASE_PATIENCE if beat.phase in self.long_phases else 1
        return max(patience * self.watchdog_seconds, STEPS_PATIENCE * beat.step_seconds)
