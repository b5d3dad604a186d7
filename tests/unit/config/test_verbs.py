"""Both command lines: what they list, what they refuse, and that a mistake is a line and not a traceback."""

import os
import sys
import types
from collections.abc import Callable, Sequence

import pytest

import data_prep.main
import ifvit.commands.main
from ifvit.config.errors import UserError
from ifvit.config.verbs import run_verb

PROGRAMS = {
    "ifvit": (ifvit.commands.main.main, ifvit.commands.main.VERBS),
    "python -m data_prep": (data_prep.main.main, data_prep.main.VERBS),
}
EVERY_VERB = [(program, verb) for program, (_, verbs) in PROGRAMS.items() for verb in verbs]
Main = Callable[[Sequence[str]], int]


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
@pytest.mark.parametrize("program", PROGRAMS)
def test_overview_lists_every_verb(program: str, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main, verbs = PROGRAMS[program]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out for verb in verbs)


@pytest.mark.parametrize("program, verb", EVERY_VERB)
def test_every_verb_explains_itself(program: str, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert PROGRAMS[program][0]([verb, "--help"]) == 0
    assert f"usage: {program} {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_unknown_verb_is_named(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert PROGRAMS[program][0](["trian"]) == 2
    assert capsys.readouterr().err.startswith("error: trian: unknown verb, must be one of ")


@pytest.mark.parametrize("argv", [["shards"], ["shards", "recipe.yaml", "--outt", "x"]])
def test_a_wrong_option_exits_with_2(argv: list[str]) -> None:
    assert data_prep.main.main(argv) == 2


def raising(error: BaseException) -> Callable[[object], None]:
    def run(arguments: object) -> None:
        raise error

    return run


@pytest.mark.parametrize(
    "run, code, message",
    [
        (raising(UserError("a.b: is wrong", "c: too")), 2, "error: a.b: is wrong\nerror: c: too\n"),
        (raising(KeyboardInterrupt()), 130, "interrupted: "),
        (lambda arguments: 75, 75, ""),
        (lambda arguments: None, 0, ""),
    ],
)
def test_exit_codes(
    run: Callable[[object], int | None],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    verb = types.ModuleType("some_package.do_it", "Does it.")
    verb.add_arguments = lambda parser: None  # type: ignore[attr-defined]
    verb.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_package", types.ModuleType("some_package"))
    monkeypatch.setitem(sys.modules, "some_package.do_it", verb)
    assert run_verb("program", "some_package", {"do-it": "does it"}, ["do-it"]) == code
    assert capsys.readouterr().err.startswith(message)


def test_our_own_faults_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ifvit.commands.main, "VERBS", {"nonsense": ""})
    with pytest.raises(ModuleNotFoundError):
        ifvit.commands.main.main(["nonsense"])


def test_a_missing_recipe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert data_prep.main.main(["shards", "no_such_recipe.yaml"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: no_such_recipe.yaml: no such recipe\n"
    assert captured.out == ""


@pytest.mark.parametrize("given, expected", [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_without_spinning_unless_told_to(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    assert ifvit.commands.main.main(["--version"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == expected
