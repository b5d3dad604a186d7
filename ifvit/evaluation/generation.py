"""generation.json: which starts made an evaluation's images, on what and how long. Measuring them again keeps it."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifvit.config.errors import UserError
from ifvit.runtime.files import write_atomically

GENERATION_FILE = "generation.json"


class GenerationRecord:
    """The starts that made images in `folder`, in order, each with `num_images` and `seconds`.

    `start` describes this process. It is recorded with the first images it makes; its clock runs from now on.
    """

    def __init__(self, folder: Path, start: Mapping[str, Any]) -> None:
        self.file = folder / GENERATION_FILE
        self.starts = read_starts(self.file)
        self.current = {**start, "num_images": 0, "seconds": 0.0}
        self.begun = time.monotonic()

    def advance(self, num_images: int) -> None:
        """So many more images were made."""
        if not self.current["num_images"]:
            self.starts.append(self.current)
        self.current["num_images"] += num_images
        self.current["seconds"] = round(time.monotonic() - self.begun, 2)
        write_atomically(self.file, (json.dumps({"starts": self.starts}, indent=2) + "\n").encode())

    def seconds(self, num_images: int) -> float | None:
        """How long making `num_images` took; None where it is not known of all of them."""
        if sum(start["num_images"] for start in self.starts) < num_images:
            return None
        return round(sum(start["seconds"] for start in self.starts), 2)


def read_starts(file: Path) -> list[dict[str, Any]]:
    """Those recorded in `file`, none where it is not there. Raises UserError for a file of another kind."""
    if not file.is_file():
        return []
    try:
        return [
            {**start, "num_images": int(start["num_images"]), "seconds": float(start["seconds"])}
            for start in json.loads(file.read_bytes())["starts"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: is no record of `ifvit evaluate`; remove it") from error
