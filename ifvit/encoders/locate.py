"""Where an encoder's files come from: a local folder, the hub, ifvit itself, or the cache of random weights."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ifvit.config.errors import UserError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
BUNDLED_FOLDER = Path(__file__).parent / "bundled"
BUNDLED = {"scenes-autoencoder": "autoencoder", "scenes-clip": "clip"}  # name in a recipe: folder that comes with ifvit
RANDOM_MARK = "RANDOM_WEIGHTS"  # a file beside random weights, so that every output that used them can say so
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class EncoderSource:
    """What `from_pretrained` gets: `location` (folder or owner/name) and `subfolder` inside it ("" for none)."""

    field: str  # dotted recipe field, or an option of the command line; for errors
    location: str
    subfolder: str = ""

    @property
    def is_random(self) -> bool:
        return (Path(self.location) / RANDOM_MARK).is_file()

    def load(self, what: str, from_pretrained: Callable[[], Loaded]) -> Loaded:
        """`from_pretrained()`, with whatever it raises as one UserError that names the field and the fix."""
        try:
            return from_pretrained()
        except Exception as error:  # the libraries raise almost any type for files that are not what they expect
            cause = " ".join(str(error).split())[:300]
            if Path(self.location).is_dir():
                raise UserError(
                    f"{self.field}: {what} cannot be loaded from the folder {self.location}: {cause}"
                ) from error
            name = "/".join(filter(None, (self.location, self.subfolder)))
            raise UserError(
                f"{self.field}: '{name}' is no local folder, and the hub did not give {what} of that name ({cause}); "
                f"give a local folder: {setting(self.field)}"
            ) from error


def locate(field: str, name: str) -> EncoderSource:
    """The source that `name`, the value of `field`, stands for. Raises UserError where it is none."""
    if name in BUNDLED:
        return EncoderSource(field, str(BUNDLED_FOLDER / BUNDLED[name]))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return EncoderSource(field, str(folder))
    if not HUB_NAME.fullmatch(name):
        raise UserError(
            f"{field}: '{name}' is no local folder, no hub name (owner/name or owner/name/subfolder) and none of "
            f"{', '.join(BUNDLED)}; "
            f"give one: {setting(field)}"
        )
    owner, repository, *subfolder = name.split("/")
    return EncoderSource(field, f"{owner}/{repository}", "".join(subfolder))


def setting(field: str) -> str:
    """How the command line gives `field` a folder."""
    return f"{field} DIR" if field.startswith("--") else f"--set {field}=DIR"
