"""A login node must read and check recipes at once: no heavy package is imported for it."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch", "deepspeed", "transformers", "diffusers", "mlflow", "webdataset", "submitit", "numpy", "PIL", "matplotlib",
    "pandas",
)  # fmt: skip


def heavy_modules_after(statement: str, repository: Path) -> str:
    """The heavy packages that a fresh interpreter has after `statement`."""
    code = f"import sys\n{statement}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repository)
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "statement",
    [
        "import ifvit",
        "from ifvit.config.loading import load_recipe; load_recipe('recipes/coco256/cross_intermediate.yaml')",
        "import ifvit.runtime.run_directory, ifvit.runtime.metrics, ifvit.runtime.progress, ifvit.runtime.environment",
        "import ifvit.runtime.tracking",
        "import ifvit.commands.main",
        "from ifvit.commands.main import main; main(['runs', 'recipes'])",
    ],
)
def test_nothing_heavy_is_imported(statement: str, repository: Path) -> None:
    assert heavy_modules_after(statement, repository) == "[]"


@pytest.mark.fault(
    "F18",
    injected="a typo given to each command that takes a recipe",
    detected="exit code 2 before any heavy import",
    recovered="-",
    lost="nothing",
)
@pytest.mark.parametrize("verb", ["train", "flops", "plan", "bench step", "data audit", "validate"])
def test_a_mistake_in_a_recipe_does_not_wait_for_them(verb: str, repository: Path) -> None:
    """Fault F18."""
    arguments = [*verb.split(), "recipes/demo.yaml", "--set", "model.dept=2"]
    statement = f"from ifvit.commands.main import main; assert main({arguments!r}) == 2"
    assert heavy_modules_after(statement, repository) == "[]"


def test_the_check_sees_a_heavy_import(repository: Path) -> None:
    assert heavy_modules_after("import numpy", repository) == "['numpy']"


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import ifvit

    with pytest.raises(AttributeError, match="nonsense"):
        ifvit.nonsense  # noqa: B018
