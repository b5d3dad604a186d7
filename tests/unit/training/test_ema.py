"""Averaged weights: the formula, several decays, and that the parameters themselves stay."""

import torch

from ifvit.training.ema import Ema
from ifvit.training.fragments import Fragment


def fragment(values: list[float]) -> Fragment:
    weight = torch.tensor(values)
    return Fragment("weight", 0, weight, weight, 0)


def test_average_starts_as_a_copy_and_follows() -> None:
    part = fragment([1.0, 2.0])
    ema = Ema([part], [0.9, 0.5])
    part.weight.copy_(torch.tensor([3.0, 0.0]))
    ema.update()
    torch.testing.assert_close(ema.averages[0.9][0], torch.tensor([0.9 * 1 + 0.1 * 3, 0.9 * 2]))
    torch.testing.assert_close(ema.averages[0.5][0], torch.tensor([2.0, 1.0]))
    ema.update()
    torch.testing.assert_close(ema.averages[0.5][0], torch.tensor([2.5, 0.5]))
    assert part.weight.tolist() == [3.0, 0.0]


def test_decay_of_a_million_steps_survives_float32() -> None:
    """0.9999 per step: after n steps towards 0 the average is 0.9999^n."""
    part = fragment([1.0])
    ema = Ema([part], [0.9999])
    part.weight.zero_()
    for _ in range(20_000):
        ema.update()
    assert abs(ema.averages[0.9999][0].item() / 0.9999**20_000 - 1) < 1e-3
