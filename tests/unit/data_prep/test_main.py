"""data_prep/main.py"""

import pytest

from data_prep.main import JOBS, main


@pytest.mark.parametrize("argv", [["--help"], *([job, "--help"] for job in JOBS)])
def test_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "python -m data_prep" in out
    assert all(word in out for word in (JOBS if argv == ["--help"] else argv[:1]))


@pytest.mark.parametrize("argv", [[], ["shard"], ["shards"], ["shards", "recipe.yaml", "--outt", "x"]])
def test_a_wrong_command_line_exits_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2


def test_a_user_s_mistake_is_a_line_not_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shards", "no_such_recipe.yaml"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: no_such_recipe.yaml: no such recipe\n"
    assert captured.out == ""
