"""One pool of ranks per world size, for all distributed tests."""

from collections.abc import Iterator

import pytest

from tests.distributed.rank_pool import RankPool


@pytest.fixture(scope="session")
def pools() -> Iterator[dict[int, RankPool]]:
    started = {world_size: RankPool(world_size) for world_size in (1, 2)}
    yield started
    for pool in started.values():
        pool.close()
