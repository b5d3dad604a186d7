"""Freed memory stays in the process: the next allocation of that size has no page faults."""

import resource
import subprocess
import sys
from pathlib import Path

from ifvit.runtime.host_memory import keep_freed_memory


def page_faults_of_large_arrays() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        first, second = b"1" * 40_000_000, b"2" * 40_000_000
        del first, second
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def check() -> None:
    before = page_faults_of_large_arrays()
    assert keep_freed_memory()
    page_faults_of_large_arrays()
    assert page_faults_of_large_arrays() < 100 < before  # 78,000 pages of 4 KiB; where pages are huge, hundreds


def test_freed_memory_is_used_again(repository: Path) -> None:
    """In a new interpreter: this one keeps what other tests freed."""
    code = "from tests.unit.runtime.test_host_memory import check; check()"
    subprocess.run([sys.executable, "-c", code], cwd=repository, check=True, timeout=120)
