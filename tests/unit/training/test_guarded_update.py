"""An update is clipped as torch clips it, or left out whole."""

import pytest
import torch
from torch import Tensor, nn

from ifvit.config.schema import OptimizerConfig
from ifvit.training.guarded_update import GuardedUpdate, carry_into_gradients
from ifvit.training.optimizer import make_optimizer


def guarded(model: nn.Module, max_grad_norm: float | None) -> tuple[torch.optim.AdamW, GuardedUpdate]:
    optimizer = make_optimizer(model, OptimizerConfig())

    def grad_norm() -> Tensor:
        return torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])

    return optimizer, GuardedUpdate(optimizer, grad_norm, max_grad_norm, torch.device("cpu"))


def state_of(model: nn.Module, optimizer: torch.optim.AdamW) -> list[Tensor]:
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return [tensor.detach().clone() for tensor in (*model.parameters(), *moments)]


def test_clipping_is_torchs() -> None:
    for max_grad_norm in (0.01, 1e6):
        models = []
        for is_ours in (True, False):
            torch.manual_seed(0)
            model = nn.Linear(5, 3)
            optimizer, guard = guarded(model, max_grad_norm if is_ours else None)
            for step in range(3):
                optimizer.zero_grad()
                model(torch.arange(5.0) + step).square().sum().backward()
                norm = guard.read_grad_norm()
                if not is_ours:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
                optimizer.step()
                assert guard.outcome is not None
                if is_ours:
                    assert torch.equal(guard.outcome.grad_norm, norm)
            models.append(state_of(model, optimizer))
        for ours, theirs in zip(*models, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_what_is_left_out_changes_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    optimizer, guard = guarded(model, 1.0)
    skipped = []
    for factor, must_skip in (
        (1.0, None),
        (torch.nan, None),
        (torch.inf, None),
        (1.0, torch.tensor(True)),
        (1.0, None),
    ):
        before = state_of(model, optimizer)
        optimizer.zero_grad()
        (model(torch.arange(5.0)).square().sum() * factor).backward()
        guard.must_skip = must_skip
        optimizer.step()
        assert guard.outcome is not None
        skipped.append(guard.outcome.is_skipped.item())
        if skipped[-1]:
            assert all(map(torch.equal, before, state_of(model, optimizer)))
        assert guard.outcome.grad_norm.isfinite().item() == (factor == 1.0)
    assert skipped == [False, True, True, True, False]
    assert {state["step"].item() for state in optimizer.state.values()} == {2.0}


def gradients(losses: list[float], *, are_guarded: bool) -> list[Tensor]:
    """Of two micro-batches, whose losses are given other values than those that their gradients are of."""
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    for factor, value in enumerate(losses):
        micro_loss = model(torch.tensor([-1.0, 0.0, 0.3, 1e-30, 1e30]) * factor).sum() / 3
        micro_loss.detach().fill_(value)
        if are_guarded:
            carry_into_gradients(micro_loss)
        micro_loss.backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("value", [0.0, -0.0, -2.5, 1e-45, 3e38])
def test_a_finite_loss_leaves_its_gradients_as_they_are(value: float) -> None:
    ours, plain = (gradients([value, value], are_guarded=each) for each in (True, False))
    for our, their in zip(ours, plain, strict=True):
        assert torch.equal(our, their) and torch.equal(our.signbit(), their.signbit())


@pytest.mark.parametrize("losses", [[torch.nan, 1.0], [1.0, torch.inf], [-torch.inf, 1.0]])
def test_a_loss_that_is_not_finite_is_seen_in_every_gradient(losses: list[float]) -> None:
    assert all(gradient.isfinite().all() for gradient in gradients(losses, are_guarded=False))
    assert all(gradient.isnan().all() for gradient in gradients(losses, are_guarded=True))
