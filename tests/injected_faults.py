"""Faults inside a process of the tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ifvit.runtime.fault_injection import VARIABLE


@contextmanager
def injected(faults: str) -> Iterator[None]:
    """IFVIT_FAULTS says `faults` in the block."""
    os.environ[VARIABLE] = faults
    try:
        yield
    finally:
        del os.environ[VARIABLE]
