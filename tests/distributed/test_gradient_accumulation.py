"""Micro-batches in bf16 add up in float32: splitting a batch costs no precision."""

import pytest
import torch

from tests.distributed.gradient_accumulation import first_gradient
from tests.distributed.rank_pool import RankPool


def relative_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    ours_flat, theirs_flat = (torch.cat([each[name].flatten() for name in sorted(each)]) for each in (ours, theirs))
    return ((ours_flat - theirs_flat).norm() / theirs_flat.norm()).item()


@pytest.mark.parametrize("world_size", [1, 2])
def test_splitting_a_bf16_batch_keeps_its_gradient(pools: dict[int, RankPool], world_size: int) -> None:
    exact, *_ = pools[1].run(first_gradient, precision="fp32", micro_batch_size=32)
    whole, *_ = pools[1].run(first_gradient, precision="bf16", micro_batch_size=32)
    split, *_ = pools[world_size].run(first_gradient, precision="bf16", micro_batch_size=1)
    error_whole, error_split = relative_difference(whole, exact), relative_difference(split, exact)
    print(f"relative error of the gradient: {error_whole:.2e} whole, {error_split:.2e} in single rows")
    assert error_split < 1.1 * error_whole
