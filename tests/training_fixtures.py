"""Whole training runs on a pool of ranks, for tests/distributed and tests/faults alike: one pool per world size."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.rank_pool import RankPool

Train = Callable[..., list[Any]]
Overheard = Callable[..., list[tuple[int | str, str]]]


@pytest.fixture(scope="session")
def pools() -> Iterator[dict[int, RankPool]]:
    """Ranks that stay alive, by world size."""
    pools = {world_size: RankPool(world_size) for world_size in (1, 2)}
    yield pools
    for pool in pools.values():
        pool.close()


@pytest.fixture(scope="session")
def shards_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of ten drawn images."""
    from data_prep.shards import make_shards
    from tests.drawn_coco import draw_coco, tiny_recipe

    root = tmp_path_factory.mktemp("shards")
    make_shards(tiny_recipe(draw_coco(tmp_path_factory.mktemp("coco"), num_images=10), root))
    return root


@pytest.fixture(scope="session")
def train(pools: dict[int, RankPool], shards_root: Path) -> Train:
    """`train(world_size, runs_root, *overrides)`: the exit codes by rank of a run of `training_runs.RUN`, or by rank
    what another `function` that makes such a run returns. More arguments are the function's."""
    from tests.distributed.training_runs import train_run

    def run(
        world_size: int, runs_root: Path, *overrides: str, function: Callable[..., Any] = train_run, **arguments: Any
    ) -> list[Any]:
        given = {"shards_root": shards_root, "runs_root": runs_root, "overrides": list(overrides)} | arguments
        return pools[world_size].run(function, **given)

    return run


@pytest.fixture(scope="session")
def undisturbed(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight steps on one rank at stage 1, in one go. Not to be written to."""
    root = tmp_path_factory.mktemp("undisturbed")
    assert train(1, root) == [0]
    return root


@pytest.fixture(scope="session")
def undisturbed_pair(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight steps on two ranks at stage 1, in one go. Not to be written to."""
    root = tmp_path_factory.mktemp("undisturbed_pair")
    assert train(2, root) == [0, 0]
    return root


@pytest.fixture(scope="session")
def overheard(train: Train) -> Overheard:
    """`overheard(world_size, runs_root, *overrides)`: outcome and standard error of each rank of a run."""
    from tests.faults.overheard_runs import overheard_run

    return partial(train, function=overheard_run)
