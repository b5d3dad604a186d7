"""Two makings of the same shards, compared byte by byte."""

import json
from pathlib import Path

LOCKS = (".lock", ".claims")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder of shards, but for locks and how long each shard took."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: content(path) for name, path in sorted(files.items()) if path.name not in LOCKS}


def content(path: Path) -> bytes:
    if path.match("shard-*.json"):
        mark = json.loads(path.read_bytes())
        assert mark.pop("seconds") >= 0 and mark.pop("content_sha256")
        return json.dumps(mark).encode()
    return path.read_bytes()
