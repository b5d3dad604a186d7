"""A folder that one command fills over several starts, each with the settings that the first one noted in it."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_prep.folder_lock import LOCK_FILE, only_writer
from ifvit.config.errors import UserError
from ifvit.config.loading import leaves
from ifvit.runtime.files import refuse_used_folder, write_atomically

OPTION = "--out"


@contextmanager
def begun_folder(
    folder: Path, settings_file: str, settings: Mapping[str, Any], label: Callable[[str], str]
) -> Iterator[None]:
    """Holds `folder`, the value of --out, for this process: a new one, or one begun with the same `settings`.

    Raises UserError where it cannot be written, is somebody else's, is held by another process, or was begun with other
    settings: the first one that differs, its dotted path called what `label` gives.
    """
    try:
        refuse_foreign_folder(folder, settings_file)
        with only_writer(folder, OPTION):
            claim(folder / settings_file, settings, label)
            yield
    except OSError as error:
        raise UserError(f"{OPTION} {folder}: cannot be written: {error.strerror or error}") from error


def refuse_foreign_folder(folder: Path, settings_file: str) -> None:
    """A folder with other things in it is somebody's data. One with nothing but a lock is a start that was killed."""
    if (folder / settings_file).is_file():
        return
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    if not names or any(name != LOCK_FILE and not name.startswith(f".{settings_file}.tmp") for name in names):
        refuse_used_folder(folder, OPTION)


def claim(file: Path, settings: Mapping[str, Any], label: Callable[[str], str]) -> None:
    """Note `settings` in a new folder; compare them with those of one that was begun."""
    for unfinished in file.parent.glob(f".{file.name}.tmp*"):
        unfinished.unlink()
    if not file.is_file():
        write_atomically(file, json.dumps(settings, indent=1).encode())
        return
    try:
        there = dict(leaves(json.loads(file.read_bytes())))
    except (ValueError, AttributeError):
        raise UserError(f"{file}: is damaged; delete {file.parent} or use another {OPTION}") from None
    here = dict(leaves(settings))
    for dotted in dict.fromkeys([*here, *there]):
        if here.get(dotted) != there.get(dotted):
            raise UserError(
                f"{label(dotted)}: is {shown(here.get(dotted))}, but {file.parent} was made with "
                f"{shown(there.get(dotted))}; delete it or use another {OPTION}"
            )


def option(name: str) -> str:
    """The option of the command line that sets `name`."""
    return f"--{name.replace('_', '-')}"


def shown(value: Any) -> str:
    if value is None:
        return "none"
    return " ".join(value) if isinstance(value, list) else str(value)
