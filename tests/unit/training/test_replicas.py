"""Which rank is accused, from what each holds; and that a digest sees a flipped bit."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from ifvit.runtime.distributed import Ranks
from ifvit.training.fragments import Fragment
from ifvit.training.replicas import Holdings, ReplicaHook, accusations, digest, replica_hooks


def held(host: str, value: int, owned: set[str] | None = None, damaged: set[str] | None = None) -> Holdings:
    return Holdings(host, {"a": (1, 1), "b": (value, value)}, frozenset(owned or ()), frozenset(damaged or ()))


def test_one_rank_says_that_it_compares_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert replica_hooks(cast(Any, None), Ranks(), 10) == []
    assert capsys.readouterr().err.startswith("runtime.replica_check_every_steps: does nothing on one rank")
    assert len(replica_hooks(cast(Any, None), Ranks(world_size=2), 10)) == 1


def test_most_ranks_are_right() -> None:
    assert accusations([held("x", 1), held("y", 2), held("z", 1)]) == ["rank 1 on y differs in b"]


def test_two_ranks_that_differ_are_not_told_apart() -> None:
    (line,) = accusations([held("x", 1), held("y", 2)])
    assert line == "no majority of the 2 ranks says which is right in b"


def test_who_holds_the_float32_weights_is_right() -> None:
    assert accusations([held("x", 1), held("y", 2, {"b"})]) == ["rank 0 on x differs in b"]


def test_a_part_that_is_not_what_it_was_rounded_from_is_wrong() -> None:
    assert accusations([held("x", 1), held("y", 2, {"b"}, {"b"})]) == ["rank 1 on y differs in b"]
    assert accusations([held("x", 1, damaged={"b"}), held("y", 1)]) == ["rank 0 on x differs in b"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_digest_sees_each_flipped_bit_and_two_that_cancel(dtype: torch.dtype) -> None:
    values = torch.randn(50, generator=torch.Generator().manual_seed(0)).to(dtype)
    for bit in range(8 * values.element_size() - 1):
        flipped = values.clone()
        flipped.view(torch.int32 if dtype == torch.float32 else torch.int16)[17] ^= 1 << bit
        assert not torch.equal(digest(values), digest(flipped))
    two = values.clone()
    integers = two.view(torch.int32 if dtype == torch.float32 else torch.int16)
    integers[3] += 5
    integers[4] -= 5
    assert not torch.equal(digest(values), digest(two))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_part_is_compared_by_its_bits(dtype: torch.dtype) -> None:
    """A flipped sign of zero is found, and a NaN that came by rounding is no difference."""
    values = torch.tensor([1.0, 0.0, torch.nan, 3.0])
    own = {name: values.clone() for name in ("same", "sign", "last")}
    own["sign"][1] = -0.0
    own["last"][3] = 3.5
    module = nn.ParameterDict({name: nn.Parameter(values.to(dtype)) for name in own})
    fragments = [Fragment(name, 1, weight[1:], weight, 1) for name, weight in own.items()]
    engine: Any = SimpleNamespace(module=module, fragments=fragments)
    assert ReplicaHook(engine, Ranks(), 1).own_parts_differ().tolist() == [False, True, True]
