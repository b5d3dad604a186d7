"""Each fault of the table has a test: its marker `fault` stands somewhere below tests/, with all it must say."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.fault_table import TEXTS

TESTS = Path(__file__).parents[1]
EXPECTED = {f"F{number:02d}" for number in range(1, 29)} - {"F17", "F19"}  # those two are not here yet


def fault_markers() -> Iterator[tuple[Path, ast.Call]]:
    """Every marker `fault` of a test, of a case or of a whole file, with its file."""
    for path in TESTS.glob("**/test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                marking: list[ast.expr] = node.decorator_list
            elif isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["pytestmark"]:
                marking = [node.value]
            else:
                continue
            for part in (part for expression in marking for part in ast.walk(expression)):
                if isinstance(part, ast.Call) and ast.unparse(part.func) == "pytest.mark.fault":
                    yield path, part


def fault_id(marker: ast.Call) -> str:
    (argument,) = marker.args
    assert isinstance(argument, ast.Constant) and isinstance(argument.value, str), "an id that can be searched for"
    return argument.value


def test_every_fault_has_a_test() -> None:
    found = {fault_id(marker) for _, marker in fault_markers()}
    assert found == EXPECTED, f"without a test: {sorted(EXPECTED - found)}"


def test_each_marker_says_all_four() -> None:
    incomplete = {
        f"{path.name}: {fault_id(marker)}"
        for path, marker in fault_markers()
        if {keyword.arg for keyword in marker.keywords} != set(TEXTS)
    }
    assert incomplete == set()
