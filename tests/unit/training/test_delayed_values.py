"""Numbers that reach the host a step late."""

import pytest
import torch

from ifvit.training.delayed_values import DelayedValues


def test_values_are_taken_once_with_their_label() -> None:
    delayed: DelayedValues[str] = DelayedValues()
    assert delayed.take() is None
    delayed.put("first", [torch.tensor(2.5), torch.tensor(True), torch.tensor(float("inf"), dtype=torch.float64)])
    assert delayed.take() == ("first", [2.5, 1.0, float("inf")])
    assert delayed.take() is None


def test_what_was_put_is_as_of_then() -> None:
    delayed: DelayedValues[int] = DelayedValues()
    loss = torch.tensor(1.0, requires_grad=True)
    delayed.put(1, [loss])
    with torch.no_grad():
        loss.fill_(2.0)
    assert delayed.take() == (1, [1.0])


def test_nothing_is_overwritten_unseen() -> None:
    delayed: DelayedValues[int] = DelayedValues()
    delayed.put(1, [torch.tensor(1.0)])
    with pytest.raises(AssertionError):
        delayed.put(2, [torch.tensor(2.0)])
    delayed.drop()
    delayed.put(3, [torch.tensor(3.0)])
    assert delayed.take() == (3, [3.0])
