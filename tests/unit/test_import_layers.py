"""Data flows one way: a package may import itself and the packages before it in LAYERS."""

import ast
from pathlib import Path

import pytest

LAYERS = [
    "config", "runtime", "encoders", "data", "model", "diffusion", "training",
    "checkpoint", "sampling", "evaluation", "reporting", "benchmark", "launch", "commands",
]  # fmt: skip
DATA_PREP_MAY_IMPORT = {"config", "runtime", "encoders", "data", "launch"}
# Heavy or replaceable packages, each wrapped by a few files; all else goes through those.
WRAPPED = {
    "deepspeed": 2, "xformers": 2, "mlflow": 2, "submitit": 2, "diffusers": 3, "transformers": 3, "webdataset": 2,
    "fsspec": 1, "aiohttp": 1,
}  # fmt: skip
REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "ifvit"
SOURCES = sorted(PACKAGE.glob("*/**/*.py"))
DATA_PREP_SOURCES = sorted((REPOSITORY / "data_prep").glob("**/*.py"))


def imported_names(source: Path) -> list[str]:
    """Dotted names of everything that `source` imports, also inside functions."""
    names = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


def imported_layers(source: Path) -> set[str]:
    return {name.split(".")[1] for name in imported_names(source) if name.startswith("ifvit.")} & set(LAYERS)


def test_every_package_is_a_layer() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= set(LAYERS)
    assert {"config", "runtime"} <= packages


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_from_earlier_layers(source: Path) -> None:
    here = LAYERS.index(source.relative_to(PACKAGE).parts[0])
    later = {layer for layer in imported_layers(source) if LAYERS.index(layer) > here}
    assert not later, f"{source.name} is in {LAYERS[here]!r} and imports from later layers: {sorted(later)}"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_data_prep(source: Path) -> None:
    assert not [name for name in imported_names(source) if name.split(".")[0] == "data_prep"]


@pytest.mark.parametrize("source", DATA_PREP_SOURCES, ids=lambda path: path.name)
def test_data_prep_imports_only_what_it_may(source: Path) -> None:
    assert imported_layers(source) <= DATA_PREP_MAY_IMPORT


@pytest.mark.parametrize("library", WRAPPED)
def test_each_library_is_imported_in_few_files(library: str) -> None:
    files = [
        str(source.relative_to(REPOSITORY))
        for source in [*SOURCES, *DATA_PREP_SOURCES]
        if any(name.split(".")[0] == library for name in imported_names(source))
    ]
    assert len(files) <= WRAPPED[library], f"{library} is imported in {files}"
