"""What the latents of a set are like, channel by channel, summed up batch by batch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HISTOGRAM_BINS, HISTOGRAM_END = 80, 4.0  # bins over -END..END of the scaled latents; beyond lie 0.006% of a unit normal


@dataclass(frozen=True)
class ChannelStatistics:
    """Of one channel's unscaled latents. Lowest and highest are those of the stored means."""

    mean: float
    deviation: float  # of sampled latents: variance = E[mean^2] + E[variance] - E[mean]^2
    lowest: float
    highest: float


class LatentStatistics:
    """Sums over the moments added so far, C channels."""

    def __init__(self, num_channels: int) -> None:
        self.count = 0  # elements of one channel
        self.sums = np.zeros((3, num_channels))  # of mean, mean squared and variance
        self.lowest = np.full(num_channels, np.inf)
        self.highest = np.full(num_channels, -np.inf)
        self.histogram = np.zeros(HISTOGRAM_BINS, np.int64)  # of sampled latents, scaled to unit variance
        self.num_drawn = 0  # those in the histogram and those beyond its ends

    def add(self, moments: NDArray[np.float16]) -> None:
        """`moments` (B, 2C, H, W), finite."""
        mean, logvar = np.split(moments.astype(np.float64), 2, axis=1)
        each_channel = (0, 2, 3)
        self.count += mean.size // mean.shape[1]
        sums = [values.sum(axis=each_channel) for values in (mean, np.square(mean), np.exp(logvar))]
        self.sums += sums
        self.lowest = np.minimum(self.lowest, mean.min(axis=each_channel))
        self.highest = np.maximum(self.highest, mean.max(axis=each_channel))

    def draw(self, moments: NDArray[np.float16], scaling_factor: float, random: np.random.Generator) -> None:
        """Sample latents of `moments` (B, 2C, H, W) into the histogram."""
        mean, logvar = np.split(moments.astype(np.float32), 2, axis=1)
        latents = mean + np.exp(logvar / 2) * random.standard_normal(mean.shape, np.float32)
        bins = np.floor((latents * scaling_factor + HISTOGRAM_END) * (HISTOGRAM_BINS / (2 * HISTOGRAM_END)))
        inside = bins[(bins >= 0) & (bins < HISTOGRAM_BINS)].astype(np.int64)
        self.histogram += np.bincount(inside, minlength=HISTOGRAM_BINS)
        self.num_drawn += latents.size

    def merge(self, other: "LatentStatistics") -> None:
        """Add what `other` has seen."""
        self.count += other.count
        self.sums += other.sums
        self.lowest = np.minimum(self.lowest, other.lowest)
        self.highest = np.maximum(self.highest, other.highest)
        self.histogram += other.histogram
        self.num_drawn += other.num_drawn

    @property
    def all_sums(self) -> NDArray[np.float64]:
        """As `ifvit.data.shard_content.latent_sums` gives them: number, mean, mean squared and variance."""
        return np.array([self.count * self.sums.shape[1], *self.sums.sum(axis=1)])

    def channels(self) -> list[ChannelStatistics]:
        """For each channel; there must be samples."""
        mean, mean_squared, variance = self.sums / self.count
        deviation = np.sqrt(mean_squared + variance - mean**2)
        return [
            ChannelStatistics(*map(float, values))
            for values in zip(mean, deviation, self.lowest, self.highest, strict=True)
        ]
