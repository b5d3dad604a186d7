"""Are an image's captions drawn uniformly, anew in each epoch, and dropped as often as the recipe says?"""

import numpy as np

from ifvit.data.audit.check import Check, chance_check, chi_square_check, count_z, exact_check, not_judged
from ifvit.data.order import Integers
from ifvit.data.sample_stream import Order

MAX_VISITS = 1_000_000  # enough to see a share that is off by 0.3%
MIN_EXPECTED = 20  # visits per caption number


class CaptionAudit:
    """Looks at the first MAX_VISITS visits that it is given."""

    uniform_name = "captions of an image drawn equally often"
    anew_name = "same caption again in the next epoch"
    dropped_name = "captions left out (caption_dropout_prob)"

    def __init__(self, order: Order, caption_dropout_prob: float) -> None:
        self.order = order
        self.caption_dropout_prob = caption_dropout_prob
        self.num_visits = 0
        self.num_dropped = 0
        self.num_outside = 0
        self.num_same = 0
        self.num_same_expected = 0.0
        self.num_several = 0  # visits to images that have several captions
        self.choices: dict[int, Integers] = {}  # number of captions to how often each was drawn

    @property
    def is_done(self) -> bool:
        return self.num_visits >= MAX_VISITS

    def add(self, own_positions: Integers, samples: Integers, num_captions: Integers) -> None:
        """Visits and how many captions their images have."""
        order = self.order
        captions = order.caption_choices(own_positions, samples, num_captions)
        next_captions = order.caption_choices(own_positions + order.num_samples, samples, num_captions)
        is_inside = (captions >= 0) & (captions < num_captions)
        self.num_outside += int((~is_inside).sum())
        for number in np.flatnonzero(np.bincount(num_captions)).tolist():
            counts = np.bincount(captions[is_inside & (num_captions == number)], minlength=number)
            self.choices[number] = self.choices.get(number, np.zeros(number, np.int64)) + counts
        several = num_captions > 1
        self.num_several += int(several.sum())
        self.num_same += int((captions == next_captions)[several].sum())
        self.num_same_expected += float((1 / num_captions[several]).sum())
        self.num_dropped += int(order.is_dropped(own_positions, samples, self.caption_dropout_prob).sum())
        self.num_visits += len(samples)

    def checks(self) -> list[Check]:
        return [self.uniform_check(), self.anew_check(), self.dropped_check()]

    def uniform_check(self) -> Check:
        """Chi-square over images with 2, 3, ... captions; numbers of captions that few images have are left out."""
        if self.num_outside:
            return exact_check(self.uniform_name, False, f"{self.num_outside:,} visits to captions that are not there")
        judged = {
            number: counts
            for number, counts in self.choices.items()
            if number > 1 and counts.sum() >= MIN_EXPECTED * number
        }
        if not judged:
            return not_judged(self.uniform_name, "too few images with several captions")
        chi_square = sum(float(((counts - counts.mean()) ** 2 / counts.mean()).sum()) for counts in judged.values())
        degrees = sum(number - 1 for number in judged)
        return chi_square_check(self.uniform_name, chi_square, degrees, f"{self.num_several:,} visits")

    def anew_check(self) -> Check:
        if self.num_several < MIN_EXPECTED:
            return not_judged(self.anew_name, "too few images with several captions")
        probability = self.num_same_expected / self.num_several
        z = count_z(self.num_same, self.num_several, probability)
        return chance_check(
            self.anew_name, z, f"{self.num_same:,} of {self.num_several:,}", f"{self.num_same_expected:,.1f}"
        )

    def dropped_check(self) -> Check:
        if not self.num_visits:
            return not_judged(self.dropped_name, "no visits")
        probability = self.caption_dropout_prob
        z = count_z(self.num_dropped, self.num_visits, probability)
        found = f"{self.num_dropped:,} of {self.num_visits:,} ({self.num_dropped / self.num_visits:.4f})"
        return chance_check(self.dropped_name, z, found, f"{probability:.4f}")
