"""Attention backends: the same numbers, and a choice that says what it took."""

import pytest
import torch

from ifvit.config.errors import UserError
from ifvit.model import attention as attention_module
from ifvit.model.attention import attention, backend, math_attention, sdpa_attention, set_attention_backend

CPU = torch.device("cpu")


def heads(length: int) -> torch.Tensor:
    return torch.randn(2, 3, length, 16, generator=torch.Generator().manual_seed(length))


def test_backends_agree() -> None:
    query, key, value = heads(5), heads(9), heads(9) * 2
    torch.testing.assert_close(sdpa_attention(query, key, value), math_attention(query, key, value))


def test_auto_names_what_it_took() -> None:
    assert set_attention_backend("auto", CPU) == "sdpa"  # xformers never runs on a CPU


def test_named_backend_is_used() -> None:
    try:
        assert set_attention_backend("math", CPU) == "math"
        assert attention_module._active is math_attention
    finally:
        set_attention_backend("auto", CPU)


def test_backend_that_does_not_work_here_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"runtime\.attention_backend: xformers .* CUDA"):
        set_attention_backend("xformers", CPU)


@pytest.mark.fault(
    "F25",
    injected="an attention backend whose backward gives NaN",
    detected="gradients are checked at start",
    recovered="the next backend is taken",
    lost="nothing",
)
def test_auto_passes_over_wrong_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault F25: a kernel whose backward gives NaN."""

    def broken(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = sdpa_attention(query, key, value)
        output.register_hook(lambda gradient: gradient * float("nan"))
        return output

    monkeypatch.setitem(attention_module.BACKENDS, "sdpa", broken)
    try:
        assert set_attention_backend("auto", CPU) == "math"
    finally:
        monkeypatch.undo()
        set_attention_backend("auto", CPU)


def test_an_analysis_can_look_at_what_passes() -> None:
    lengths = []

    def watched(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        lengths.append((query.shape[2], key.shape[2]))
        return sdpa_attention(query, key, value)

    with backend(watched):
        attention(heads(4), heads(6), heads(6))
    attention(heads(4), heads(6), heads(6))
    assert lengths == [(4, 6)]
