"""Averaged weights, kept in float32 where the weights are kept: no gathering per step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ifvit.training.fragments import Fragment


class Ema:
    """ema <- decay * ema + (1 - decay) * weight after each step, starting as a copy; one average per decay."""

    def __init__(self, fragments: Sequence[Fragment], decays: Sequence[float]) -> None:
        self.weights = [fragment.weight for fragment in fragments]
        self.averages: dict[float, list[Tensor]] = {
            decay: [weight.clone() for weight in self.weights] for decay in decays
        }

    @torch.no_grad()
    def update(self) -> None:
        for decay, averages in self.averages.items():
            torch._foreach_lerp_(averages, self.weights, 1 - decay)
