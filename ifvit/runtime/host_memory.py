"""How this process's allocator treats memory that is freed: a training step frees and asks for the same again."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
NEVER = -1


def keep_freed_memory() -> bool:
    """Keep freed memory in this process for the next allocation. True where the C library can: glibc.

    Otherwise glibc gives every large tensor that is freed back to the system, and the next one costs a page fault every
    4 KiB: 0.25 s of a step at ZeRO stage 1 on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
