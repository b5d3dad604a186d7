"""Attention backends: the same numbers, one for each dtype, and one that an analysis puts in their place."""

from typing import get_args

import pytest
import torch

from ifvit.config.schema import RuntimeConfig
from ifvit.model import attention as attention_module
from ifvit.model.attention import BACKENDS, activate, attention, backend, math_attention, sdpa_attention


def heads(length: int) -> torch.Tensor:
    return torch.randn(2, 3, length, 16, generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("name", ["sdpa", "flash"])  # those that a CPU has
def test_backends_agree(name: str) -> None:
    query, key, value = heads(5), heads(9), heads(9) * 2
    torch.testing.assert_close(BACKENDS[name](query, key, value), math_attention(query, key, value))


def test_the_recipe_names_what_there_is() -> None:
    assert get_args(RuntimeConfig.model_fields["attention_backend"].annotation) == ("auto", *BACKENDS)


def test_each_dtype_has_its_own_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_module, "_active", {})
    called = []
    monkeypatch.setitem(BACKENDS, "math", lambda *tensors: called.append(tensors[0].dtype) or math_attention(*tensors))
    activate("math", torch.bfloat16)
    for dtype in (torch.float32, torch.bfloat16):
        attention(heads(4).to(dtype), heads(6).to(dtype), heads(6).to(dtype))
    assert called == [torch.bfloat16]


def test_an_analysis_can_look_at_what_passes() -> None:
    lengths = []

    def watched(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        lengths.append((query.shape[2], key.shape[2]))
        return sdpa_attention(query, key, value)

    with backend(watched):
        attention(heads(4), heads(6), heads(6))
    attention(heads(4), heads(6), heads(6))
    assert lengths == [(4, 6)]
