"""JSON files that end with the sha256 of the rest of their content: no change of a byte goes unseen."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def sealed_json(values: Mapping[str, Any]) -> bytes:
    """`values`, of which there is one at least, as the content of a file; `content_sha256` is its last entry."""
    assert values, "there must be something to seal"
    body = json.dumps(values, indent=1).encode()
    return body.removesuffix(b"\n}") + seal(body)


def unsealed(content: bytes) -> dict[str, Any]:
    """What `sealed_json` was given. Raises ValueError where `content` is not, byte for byte, what it gave."""
    body = content[: -len(seal(b""))] + b"\n}"
    if not content.endswith(seal(body)):
        raise ValueError("its content_sha256 differs")
    try:
        values: dict[str, Any] = json.loads(body)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return values


def seal(body: bytes) -> bytes:
    return f',\n "content_sha256": "{hashlib.sha256(body).hexdigest()}"\n}}'.encode()
