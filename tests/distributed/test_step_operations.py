"""What an update asks of torch and of the other ranks: one fused operation, and one for each average."""

from collections import Counter
from typing import Any

import pytest

from ifvit.runtime.distributed import Ranks
from tests.distributed.rank_pool import RankPool
from tests.distributed.tiny_training import train_tiny
from tests.operation_counts import OperationCounts

STEPS = 3


def operations_of(ranks: Ranks, **arguments: Any) -> Counter[str]:
    """Of the steps of `train_tiny`."""
    counts = OperationCounts()
    train_tiny(ranks, steps=STEPS, watching=counts, **arguments)
    return counts.calls


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_each_average_is_one_operation_more_and_asks_no_other_rank(pools: dict[int, RankPool], zero_stage: int) -> None:
    """However many parameters there are."""
    without = pools[2].run(operations_of, zero_stage=zero_stage, decays=())
    averaged = pools[2].run(operations_of, zero_stage=zero_stage, decays=(0.9, 0.5, 0.99))
    for rank in range(2):
        assert any(name.startswith("c10d::") for name in without[rank])  # were they not seen, none would be more
        assert without[rank]["aten::_fused_adamw_"] == STEPS
        assert averaged[rank] - without[rank] == {"aten::_foreach_lerp_": 3 * STEPS}
        assert without[rank] - averaged[rank] == {}
