"""Micro-batches in bf16 add up in float32: splitting a batch costs no precision."""

import pytest
import torch

from tests.distributed.rank_pool import RankPool
from tests.distributed.tiny_training import train_tiny

ROWS = 32


def first_gradient(pool: RankPool, precision: str, micro_batch_size: int) -> torch.Tensor:
    """The first moment after one step is (1 - beta) times the gradient: of all parameters, end to end."""
    batch = {"rows": ROWS, "micro_batch_size": micro_batch_size}
    trained, *_ = pool.run(train_tiny, steps=1, train_fields={"precision": precision}, **batch)
    return torch.cat([moment.flatten() for _, moment in sorted(trained["exp_avg"].items())])


@pytest.mark.parametrize("world_size", [1, 2])
def test_splitting_a_bf16_batch_keeps_its_gradient(pools: dict[int, RankPool], world_size: int) -> None:
    exact = first_gradient(pools[1], "fp32", ROWS)
    whole, split = first_gradient(pools[1], "bf16", ROWS), first_gradient(pools[world_size], "bf16", 1)
    error_whole, error_split = ((each - exact).norm() / exact.norm() for each in (whole, split))
    print(f"relative error of the gradient: {error_whole:.2e} whole, {error_split:.2e} in single rows")
    assert error_split < 1.1 * error_whole
