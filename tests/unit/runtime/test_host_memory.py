"""Freed memory stays in the process: the next allocation of that size has no page faults."""

import resource

from ifvit.runtime.host_memory import keep_freed_memory
from tests.forked_process import exit_code, forked


def page_faults_of_large_arrays() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        first, second = b"1" * 40_000_000, b"2" * 40_000_000
        del first, second
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_freed_memory_is_used_again() -> None:
    def work() -> None:
        assert page_faults_of_large_arrays() > 70_000  # pages of 4 KiB
        assert keep_freed_memory()
        page_faults_of_large_arrays()
        assert page_faults_of_large_arrays() < 100

    assert exit_code(forked(work)) == 0
