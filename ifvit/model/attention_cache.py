"""What was the fastest attention backend, kept in files of the user, so that it is timed once per machine and shape.

One file per key, always written whole: several processes may write at once. A file that cannot be read is only timed
again.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from ifvit.model.attention_check import AttentionCall
from ifvit.runtime.environment import cpu_model
from ifvit.runtime.files import write_atomically


@dataclass(frozen=True)
class TimedBackend:
    """The fastest backend, the seconds of all that were timed, and why others were not."""

    backend: str
    seconds: dict[str, float]
    rejected: dict[str, str]


def user_cache_folder() -> Path:
    """`ifvit` in XDG_CACHE_HOME, or in ~/.cache where that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ifvit"


def cache_key(calls: Mapping[AttentionCall, int], dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Everything that the fastest backend depends on, as JSON."""
    is_cuda = device.type == "cuda"
    try:
        xformers = version("xformers")
    except PackageNotFoundError:
        xformers = None
    return {
        "device": torch.cuda.get_device_name(device) if is_cuda else cpu_model(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version() if is_cuda else None,
        "xformers": xformers,
        "dtype": str(dtype),
        "calls": sorted(
            ([json.loads(json.dumps(asdict(call))), count] for call, count in calls.items()), key=json.dumps
        ),
    }


class AttentionCache:
    """The file for one key. Trouble with it goes to `notices`, and is never an error."""

    def __init__(self, folder: Path, key: dict[str, Any]) -> None:
        self.key = key
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.path = folder / f"attention-{digest[:32]}.json"
        self.notices: list[str] = []

    def read(self) -> TimedBackend | None:
        """What was written, or None: nothing, or nothing that can be used."""
        try:
            content = json.loads(self.path.read_bytes())
            kept = TypeAdapter(TimedBackend).validate_python(content["fastest"])
            if content["key"] != self.key:
                raise ValueError("its key is another one")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.notices.append(f"attention: {self.path} cannot be used ({type(error).__name__}), timing again")
            return None
        return kept

    def write(self, backend: str, seconds: dict[str, float], rejected: dict[str, str]) -> None:
        content = {"key": self.key, "fastest": asdict(TimedBackend(backend, seconds, rejected))}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, (json.dumps(content, indent=2) + "\n").encode())
        except OSError as error:
            self.notices.append(f"attention: {self.path} cannot be written ({error.strerror}), timed at each start")
