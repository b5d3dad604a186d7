"""Two recipes with two seeds each, and a run that was not evaluated."""

from pathlib import Path

import pytest

from ifvit.reporting.comparison import Comparison, compare_runs
from tests.evaluated_runs import write_run

NAMES = ("early_seed1", "early_seed2", "cross_seed1", "cross_seed2", "later")


@pytest.fixture(scope="session")
def runs_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for seed, quality in ((1, 0.5), (2, 0.6)):
        write_run(root, f"early_seed{seed}", "model.conditioning=concat", f"seed={seed}", quality=quality)
        write_run(
            root, f"cross_seed{seed}", "model.conditioning=cross_attention", f"seed={seed}", quality=quality + 0.2
        )
    write_run(root, "later", "model.conditioning=concat", "seed=3", quality=None)
    return root


@pytest.fixture(scope="session")
def comparison(runs_root: Path) -> Comparison:
    return compare_runs([str(runs_root / name) for name in NAMES])
