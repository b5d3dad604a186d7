"""data_prep/array_task.py"""

import pytest

from data_prep.array_task import ArrayTask, array_task
from ifvit.config.errors import UserError


@pytest.fixture(autouse=True)
def no_array(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ID", "COUNT", "MIN", "MAX", "STEP"):
        monkeypatch.delenv(f"SLURM_ARRAY_TASK_{name}", raising=False)


def set_array(monkeypatch: pytest.MonkeyPatch, **values: int | str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))


@pytest.mark.parametrize("count", [1, 3, 8])
def test_tasks_share_all_units(count: int) -> None:
    assert sorted(unit for number in range(count) for unit in ArrayTask(number, count).units(7)) == list(range(7))


def test_options() -> None:
    assert array_task(None, None) == array_task(None, 1) == ArrayTask(0, 1)
    assert array_task(2, 5) == ArrayTask(2, 5)


@pytest.mark.parametrize(
    "task, num_tasks, option",
    [(0, None, "--num-tasks"), (0, 0, "--num-tasks"), (5, 5, "--task"), (-1, 5, "--task"), (None, 5, "--task")],
)
def test_options_that_contradict_each_other(task: int | None, num_tasks: int | None, option: str) -> None:
    with pytest.raises(UserError, match=f"^{option}: is ") as caught:
        array_task(task, num_tasks)
    assert "None" not in str(caught.value)


# The variables as SLURM 22.05 sets them.
@pytest.mark.parametrize(
    "values, expected",
    [
        ({"ID": 0, "COUNT": 4, "MIN": 0, "MAX": 3, "STEP": 1}, ArrayTask(0, 4)),  # --array=0-3
        ({"ID": 7, "COUNT": 4, "MIN": 5, "MAX": 8, "STEP": 1}, ArrayTask(2, 4)),  # --array=5-8
        ({"ID": 30, "COUNT": 3, "MIN": 10, "MAX": 30, "STEP": 10}, ArrayTask(2, 3)),  # --array=10-35:10
        ({"ID": 7, "COUNT": 1, "MIN": 7, "MAX": 7, "STEP": 1}, ArrayTask(0, 1)),  # --array=7
    ],
)
def test_a_slurm_array(monkeypatch: pytest.MonkeyPatch, values: dict, expected: ArrayTask) -> None:
    set_array(monkeypatch, **values)
    assert array_task(None, None) == expected
    assert array_task(1, 9) == ArrayTask(1, 9)


@pytest.mark.parametrize("numbers", [(0, 2, 5), (0, 2, 4), (5, 9), (0, 1, 3, 4)])
def test_an_array_with_gaps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, numbers: tuple[int, ...]
) -> None:
    """SLURM gives its tasks no more than this: no task could tell which share is nobody's, so all may make all."""
    for number in numbers:
        set_array(monkeypatch, ID=number, COUNT=len(numbers), MIN=numbers[0], MAX=numbers[-1], STEP=1)
        assert array_task(None, None) == ArrayTask()
        assert capsys.readouterr().out.startswith(f"note: the array's {len(numbers)} numbers have gaps")


@pytest.mark.parametrize(
    "name, value",
    [("ID", "x"), ("ID", ""), ("ID", "-1"), ("COUNT", "x" * 100), ("MIN", "\u0665"), ("MAX", "5\n"), ("STEP", 0)],
)
def test_a_variable_that_slurm_does_not_set_so(monkeypatch: pytest.MonkeyPatch, name: str, value: int | str) -> None:
    set_array(monkeypatch, **{"ID": 5, "COUNT": 6, "MIN": 0, "MAX": 5, "STEP": 1, name: value})
    with pytest.raises(
        UserError, match=rf"^SLURM_ARRAY_TASK_{name}: is '.{{,20}}', must .* give --task and --num-tasks"
    ):
        array_task(None, None)
