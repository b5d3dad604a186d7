"""Types of recipe fields that several sections share."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from ifvit.config.addresses import is_address

Probability = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Lanes = Annotated[int, Field(gt=0, le=1_000_000)]
Text = Annotated[str, Field(min_length=1)]
Folder = Annotated[Text, AfterValidator(lambda path: str(Path(path).expanduser()))]
Paths = Annotated[
    tuple[Folder, ...],
    Field(min_length=1, strict=False),
    BeforeValidator(lambda paths: (paths,) if isinstance(paths, str) else paths),
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


def expanded(location: str) -> str:
    """A path with ~ resolved; an address as it is."""
    return location if is_address(location) else str(Path(location).expanduser())


Location = Annotated[Text, AfterValidator(expanded)]
