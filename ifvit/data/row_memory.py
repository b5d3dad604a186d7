"""Rows of arrays as the memory that files are read into."""

import numpy as np
from numpy.typing import NDArray

from ifvit.data.sample_index import Bytes, Integers


class ScratchRows:
    """Rows of bytes that are used again: fresh memory for each batch would cost as much as reading."""

    def __init__(self) -> None:
        self.rows_of_size: dict[int, tuple[Bytes, list[memoryview]]] = {}

    def take(self, count: int, size: int) -> tuple[Bytes, list[memoryview]]:
        """(count, size) bytes, and the memory of each row. They hold until rows of this size are taken again."""
        content, views = self.rows_of_size.get(size, (np.empty((0, size), np.uint8), []))
        if len(views) < count:
            content = np.empty((count, size), np.uint8)
            views = byte_rows(content, np.arange(count))
            self.rows_of_size[size] = content, views
        return content[:count], views[:count]


def byte_rows(array: NDArray, rows: Integers) -> list[memoryview]:
    """The memory of `rows` of a contiguous array."""
    assert array.flags.c_contiguous
    size = array.itemsize * int(np.prod(array.shape[1:]))
    content = array.data.cast("B")
    return [content[start : start + size] for start in (rows * size).tolist()]
