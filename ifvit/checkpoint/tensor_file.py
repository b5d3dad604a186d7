"""A safetensors file written straight from memory, in few large writes, with the digest taken on the way."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

BYTES_PER_ELEMENT = 4
ELEMENTS_PER_WRITE = 2**22  # 16 MiB: the digest finds them in the processor's cache, or nearly
HEADER_ALIGNMENT = 8


class NonFiniteValuesError(Exception):
    """Values that are NaN or infinite, which no checkpoint may hold."""


def write_tensor_file(path: Path, entries: Sequence[tuple[str, int]], values: Tensor) -> dict[str, Any]:
    """Write `values`, (N,) float32 on the CPU, as the tensors `entries`, (key, number of elements), that follow each
    other in it. The file is on the disk when this returns its size in bytes and its sha256.

    Raises NonFiniteValuesError and OSError; what is at `path` then is no whole file.
    """
    header = tensor_header(entries)
    digest = hashlib.sha256(header)
    elements = values.numpy()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        write_all(descriptor, memoryview(header))
        for start in range(0, len(elements), ELEMENTS_PER_WRITE):
            part = elements[start : start + ELEMENTS_PER_WRITE]
            if not (np.isfinite(part.min()) and np.isfinite(part.max())):  # both are NaN where one element is
                raise NonFiniteValuesError(path.name)
            content = part.view(np.uint8).data
            write_all(descriptor, content)
            digest.update(content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return {"size": len(header) + elements.nbytes, "sha256": digest.hexdigest()}


def tensor_header(entries: Sequence[tuple[str, int]]) -> bytes:
    """The length of the JSON in 8 bytes, and the JSON: type, shape and place of each tensor."""
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, numel in entries:
        start, end = end, end + numel * BYTES_PER_ELEMENT
        described[key] = {"dtype": "F32", "shape": [numel], "data_offsets": [start, end]}
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def write_all(descriptor: int, content: memoryview) -> None:
    """The system may take less than it is given at once."""
    while content:
        content = content[os.write(descriptor, content) :]
