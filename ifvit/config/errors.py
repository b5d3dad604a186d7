"""Errors that a user can fix: one clear line each, exit code 2, never a traceback."""

from collections.abc import Sequence

from pydantic_core import PydanticCustomError


class UserError(Exception):
    """A mistake of the user's, as one or more lines that name the field, file or id and the fix."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines: Sequence[str] = lines


def field_error(field: str, problem: str) -> PydanticCustomError:
    """An error of one field, raised by a check that sees several fields of a section.

    `field` is the dotted path below the section that raises; `problem` completes the sentence "field: ...".
    """
    return PydanticCustomError("field", "{problem}", {"field": field, "problem": problem})


def printable(text: str) -> str:
    """`text` on one line and without control characters, whoever wrote it: what is not printable as in a literal."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
