"""ifvit/config/errors.py: what is printed never moves the cursor."""

import sys
import types

import pytest

from ifvit.config.errors import UserError, printable
from ifvit.config.verbs import run_verb


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain ümlaut 猫 🐈", "plain ümlaut 猫 🐈"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("one\ntwo\ttab\0", "one\\ntwo\\ttab\\x00"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("half \udcff", "half \\udcff"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert shown.encode().decode().isprintable()


def test_error_lines_are_printed_escaped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    verb = types.ModuleType("some_package.do_it", "Does it.")

    def run(arguments: object) -> None:
        raise UserError("image \x1b[31m.jpg: bad")

    verb.add_arguments, verb.run = (lambda parser: None), run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_package", types.ModuleType("some_package"))
    monkeypatch.setitem(sys.modules, "some_package.do_it", verb)
    assert run_verb("program", "some_package", {"do-it": "does it"}, ["do-it"]) == 2
    assert capsys.readouterr().err == "error: image \\x1b[31m.jpg: bad\n"
