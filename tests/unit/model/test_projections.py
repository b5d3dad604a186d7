"""Products with parts of a stored weight against the whole one: values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from ifvit.model.projections import QueryKeyValue, SkipMerge


def tokens(length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(2, length, 8, generator=generator, requires_grad=True)


def test_skip_merge_is_the_linear_map_of_both_side_by_side() -> None:
    hidden_states, skip = tokens(5), tokens(5) * 3
    merge = SkipMerge(8)
    assert {name: tuple(p.shape) for name, p in merge.named_parameters()} == {"weight": (8, 16), "bias": (8,)}
    whole = F.linear(torch.cat((hidden_states, skip), dim=-1), merge.weight, merge.bias)
    merged = merge(hidden_states, skip)
    torch.testing.assert_close(merged, whole)
    inputs = merge.weight, merge.bias, hidden_states, skip
    ours, theirs = (torch.autograd.grad(output.square().sum(), inputs, retain_graph=True) for output in (merged, whole))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("bias", [False, True])
def test_context_answers_and_does_not_ask(bias: bool) -> None:
    project = QueryKeyValue(8, bias=bias)
    hidden_states, context = tokens(5), tokens(3)
    query, key, value = project(hidden_states, context)
    whole = F.linear(torch.cat((hidden_states, context), dim=1), project.weight, project.bias)
    torch.testing.assert_close((query, key, value), (whole[:, :5, :8], whole[..., 8:16], whole[..., 16:]))
    torch.testing.assert_close(project(hidden_states), (query, key[:, :5], value[:, :5]))
