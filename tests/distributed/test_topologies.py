"""A checkpoint of any ZeRO stage and number of ranks goes on at any other, as if nothing had changed."""

import shutil
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.distributed.training_runs import assert_bit_equal, assert_same_to_summation_order
from tests.training_fixtures import Train


class Topology(NamedTuple):
    """How a run is spread out."""

    zero_stage: int
    world_size: int

    @property
    def overrides(self) -> tuple[str, str]:
        return f"runtime.zero_stage={self.zero_stage}", f"train.micro_batch_size={8 // self.world_size}"


SAVED_STEP, LAST_STEP = 3, 5
TOPOLOGIES = [Topology(*each) for each in product((0, 1, 2, 3), (1, 2))]
# Each stage is saved and loaded, by one rank and by two; whole, laid end to end, and cut parameter by parameter.
TELLING = [
    ((0, 1), (3, 2)),
    ((3, 2), (0, 1)),
    ((1, 2), (3, 1)),
    ((3, 1), (2, 2)),
    ((2, 2), (1, 1)),
    ((0, 2), (2, 1)),
    ((2, 1), (0, 2)),
    ((3, 2), (3, 2)),
]
Runs = Callable[[Topology, str], Path]


@pytest.fixture(scope="module")
def saved(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A run of a topology and a precision up to SAVED_STEP. Not to be written to."""

    @cache
    def run(topology: Topology, precision: str) -> Path:
        root = tmp_path_factory.mktemp("saved")
        stop = (f"train.max_steps={SAVED_STEP}", f"train.precision={precision}")
        assert set(train(topology.world_size, root, *topology.overrides, *stop)) == {0}
        return root

    return run


@pytest.fixture(scope="module")
def whole(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A run of a topology and a precision up to LAST_STEP in one go. Not to be written to."""

    @cache
    def run(topology: Topology, precision: str) -> Path:
        root = tmp_path_factory.mktemp("whole")
        stop = (f"train.max_steps={LAST_STEP}", f"train.precision={precision}")
        assert set(train(topology.world_size, root, *topology.overrides, *stop)) == {0}
        return root

    return run


def go_on(train: Train, root: Path, there: Path, topology: Topology, precision: str) -> None:
    """Continue a copy of the run in `there`, below `root`, at `topology`."""
    shutil.copytree(there, root, dirs_exist_ok=True)
    stop = (f"train.max_steps={LAST_STEP}", f"train.precision={precision}")
    assert set(train(topology.world_size, root, *topology.overrides, *stop)) == {0}


def check_pair(train: Train, root: Path, saved: Runs, whole: Runs, source: Topology, target: Topology) -> None:
    go_on(train, root, saved(source, "fp32"), target, "fp32")
    if source == target:
        assert_bit_equal(root, whole(source, "fp32"))
    else:
        assert_same_to_summation_order(root, whole(Topology(1, 1), "fp32"))


@pytest.mark.parametrize("source, target", TELLING, ids=str)
def test_telling_pairs(
    source: tuple[int, int], target: tuple[int, int], train: Train, saved: Runs, whole: Runs, tmp_path: Path
) -> None:
    check_pair(train, tmp_path, saved, whole, Topology(*source), Topology(*target))


@pytest.mark.matrix
@pytest.mark.parametrize("target", TOPOLOGIES, ids=str)
@pytest.mark.parametrize("source", TOPOLOGIES, ids=str)
def test_every_pair(source: Topology, target: Topology, train: Train, saved: Runs, whole: Runs, tmp_path: Path) -> None:
    check_pair(train, tmp_path, saved, whole, source, target)


@pytest.mark.matrix
@pytest.mark.parametrize("topology", [each for each in TOPOLOGIES if each.zero_stage], ids=str)
def test_bf16_goes_on_bit_for_bit(topology: Topology, train: Train, saved: Runs, whole: Runs, tmp_path: Path) -> None:
    go_on(train, tmp_path, saved(topology, "bf16"), topology, "bf16")
    assert_bit_equal(tmp_path, whole(topology, "bf16"))
