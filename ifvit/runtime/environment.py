"""What a run ran on: code, versions, hardware. One record per start, appended to the run's environment.json."""

import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ifvit
from ifvit.config.addresses import public_text
from ifvit.runtime.files import write_atomically

PACKAGES = (
    "torch", "deepspeed", "xformers", "transformers", "tokenizers", "diffusers", "accelerate", "webdataset", "mlflow",
    "mlflow-skinny", "submitit", "pydantic", "safetensors", "numpy", "pillow",
)  # fmt: skip


def environment_record(
    device: str,
    world_size: int,
    attention_backend: str,
    encoders: Mapping[str, Any],
    shards_sha256: str,
    **details: Any,
) -> dict[str, Any]:
    """The record of this start; all values must be JSON.

    `encoders` is their identity as the shards have it; `details` (the number of parameters, say) go in as they are.
    """
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "command": shlex.join(map(public_text, sys.argv)),
        "ifvit": ifvit.__version__,
        "git": git_state(Path(ifvit.__file__).parent),
        "python": platform.python_version(),
        "packages": package_versions(),
        "cpu": {"model": cpu_model(), "count": os.cpu_count()},
        "gpus": gpu_names(),
        "device": device,
        "world_size": world_size,
        "attention_backend": attention_backend,
        "encoders": dict(encoders),
        "shards_sha256": shards_sha256,
        **details,
    }


def append_attempt(environment_file: Path, record: Mapping[str, Any]) -> int:
    """Add `record` to the file's attempts; returns how many starts the run has had, this one included."""
    attempts = [*read_attempts(environment_file), record]
    write_attempts(environment_file, attempts)
    return len(attempts)


def end_attempt(environment_file: Path, outcome: str, reason: str | None = None) -> None:
    """Write into the record of the newest start how it ended: `outcome` "finished", "interrupted" or "failed".

    Raises ValueError where the file is gone or damaged.
    """
    if not (attempts := read_attempts(environment_file)):
        raise ValueError("the file is gone")
    *earlier, last = attempts
    ended = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "outcome": outcome, "reason": reason}
    write_attempts(environment_file, [*earlier, last | {"ended": ended}])


def write_attempts(environment_file: Path, attempts: Sequence[Mapping[str, Any]]) -> None:
    text = json.dumps({"attempts": attempts}, indent=2, ensure_ascii=False) + "\n"
    write_atomically(environment_file, text.encode())


def read_attempts(environment_file: Path) -> list[dict[str, Any]]:
    """The records of all starts that the run has had, oldest first."""
    if not environment_file.is_file():
        return []
    attempts: list[dict[str, Any]] = json.loads(environment_file.read_bytes())["attempts"]
    return attempts


def last_attempt(environment_file: Path) -> dict[str, Any] | None:
    """The record of the newest start, or None where the run has had none."""
    attempts = read_attempts(environment_file)
    return attempts[-1] if attempts else None


def git_state(package: Path) -> dict[str, Any]:
    """Commit of the source tree `package` is in, digest of what was changed since, and files git does not know.

    `commit` is None with the reason in `note` when the package was installed without git, or git is not there.
    """
    try:
        git(package, "ls-files", "--error-unmatch", "__init__.py")  # an environment inside a checkout is not its source
        commit = git(package, "rev-parse", "HEAD").decode().strip()
        changes = git(package, "diff", "HEAD", "--", ".")
        unknown = git(package, "ls-files", "--others", "--exclude-standard", "--", ".").decode().splitlines()
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "diff_sha256": None, "note": "not a git checkout"}
    return {
        "commit": commit,
        "diff_sha256": hashlib.sha256(changes).hexdigest() if changes else None,  # None: nothing was changed
        "untracked": unknown,
    }


def git(folder: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide numbers, as far as they are installed; nothing is imported for it."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def gpu_names() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
