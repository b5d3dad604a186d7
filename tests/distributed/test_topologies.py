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
Runs = Callable[[Topology, str, int], Path]


@pytest.fixture(scope="module")
def runs(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A run of a topology and a precision in one go up to a step. Not to be written to."""

    @cache
    def run(topology: Topology, precision: str, last_step: int) -> Path:
        root = tmp_path_factory.mktemp("run")
        make_steps(train, root, topology, precision, last_step)
        return root

    return run


def make_steps(train: Train, root: Path, topology: Topology, precision: str, last_step: int) -> None:
    stop = (f"train.max_steps={last_step}", f"train.precision={precision}")
    assert set(train(topology.world_size, root, *topology.overrides, *stop)) == {0}


def go_on(train: Train, root: Path, runs: Runs, source: Topology, target: Topology, precision: str) -> None:
    """To LAST_STEP in `root` at `target`, from where `source` was at SAVED_STEP."""
    shutil.copytree(runs(source, precision, SAVED_STEP), root, dirs_exist_ok=True)
    make_steps(train, root, target, precision, LAST_STEP)


def check_pair(train: Train, root: Path, runs: Runs, source: Topology, target: Topology) -> None:
    go_on(train, root, runs, source, target, "fp32")
    if source == target:
        assert_bit_equal(root, runs(source, "fp32", LAST_STEP))
    else:
        assert_same_to_summation_order(root, runs(Topology(1, 1), "fp32", LAST_STEP))


@pytest.mark.parametrize("source, target", TELLING, ids=str)
def test_telling_pairs(
    source: tuple[int, int], target: tuple[int, int], train: Train, runs: Runs, tmp_path: Path
) -> None:
    check_pair(train, tmp_path, runs, Topology(*source), Topology(*target))


@pytest.mark.matrix
@pytest.mark.parametrize("target", TOPOLOGIES, ids=str)
@pytest.mark.parametrize("source", TOPOLOGIES, ids=str)
def test_every_pair(source: Topology, target: Topology, train: Train, runs: Runs, tmp_path: Path) -> None:
    check_pair(train, tmp_path, runs, source, target)


@pytest.mark.matrix
@pytest.mark.parametrize("topology", [each for each in TOPOLOGIES if each.zero_stage], ids=str)
def test_bf16_goes_on_bit_for_bit(topology: Topology, train: Train, runs: Runs, tmp_path: Path) -> None:
    go_on(train, tmp_path, runs, topology, topology, "bf16")
    assert_bit_equal(tmp_path, runs(topology, "bf16", LAST_STEP))
