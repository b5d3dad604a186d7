"""How far a loss lies above the last good ones: a robust z-score over a window."""

import math
from statistics import median

MIN_LOSSES = 20  # fewer give no spread to measure with, unless the window itself is smaller
MAD_TO_STANDARD_DEVIATION = 1.4826  # of a normal distribution
MIN_SPREAD = 1e-3  # of the median: losses that are nearly equal make no spike of the next one


class LossWindow:
    """Judges losses by the median and the median absolute deviation of `losses`, which it extends and trims in place.

    z = (loss - median) / (1.4826 MAD)

    Args:
        threshold: a loss with a larger z is a spike.
        size: how many of the newest losses count.
        losses: those known so far, all finite, oldest first.
    """

    def __init__(self, threshold: float, size: int, losses: list[float]) -> None:
        self.threshold = threshold
        self.size = size
        self.losses = losses

    def add(self, loss: float) -> None:
        self.losses.append(loss)
        del self.losses[: -self.size]

    def limit(self) -> float:
        """The largest loss that is no spike; infinite while too few losses are known."""
        if len(self.losses) < min(self.size, MIN_LOSSES):
            return math.inf
        centre, spread = self.centre_and_spread()
        return centre + self.threshold * spread

    def z_score(self, loss: float) -> float:
        """Of a loss, given at least one known one."""
        centre, spread = self.centre_and_spread()
        return (loss - centre) / spread

    def centre_and_spread(self) -> tuple[float, float]:
        centre = median(self.losses)
        deviation = median(abs(loss - centre) for loss in self.losses)
        return centre, max(MAD_TO_STANDARD_DEVIATION * deviation, MIN_SPREAD * abs(centre))
