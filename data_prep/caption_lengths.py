"""How many tokens the captions of a set have, start and end included, and how many captions are cut."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

NumLonger = Callable[[Sequence[str]], int]  # how many of some captions have more tokens than are stored


class CaptionLengths:
    """Counts over the captions added so far, T tokens stored of each."""

    def __init__(self, num_text_tokens: int) -> None:
        self.counts = np.zeros(num_text_tokens + 1, np.int64)  # by number of tokens
        self.num_cut = 0  # of those that fill all tokens, where somebody could count

    def add(self, lengths: NDArray[np.int64], prompts: Sequence[str], num_longer: NumLonger | None) -> None:
        """The captions of one sample; without `num_longer` it stays open which are cut and which just fit."""
        self.counts += np.bincount(lengths, minlength=len(self.counts))
        full = [prompts[row] for row in np.flatnonzero(lengths == len(self.counts) - 1).tolist()]
        if full and num_longer is not None:
            self.num_cut += num_longer(full)

    def merge(self, other: "CaptionLengths") -> None:
        """Add what `other` has seen."""
        self.counts += other.counts
        self.num_cut += other.num_cut

    @property
    def num_full(self) -> int:
        """Captions that fill all tokens: those that are cut, and those that just fit."""
        return int(self.counts[-1])

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        return float(self.counts @ np.arange(len(self.counts)) / self.total)

    def quantile(self, share: float) -> int:
        """The smallest length that `share` of the captions do not exceed."""
        return int(np.searchsorted(self.counts.cumsum(), share * self.total))
