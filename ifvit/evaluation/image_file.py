"""Many images in one .npy file that grows batch by batch and survives interruptions."""

import fcntl
import io
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ifvit.config.errors import UserError


class ImageFile:
    """Images (N, height, width, 3) uint8 at `path`. Unfinished ones lie beside it, in whole batches of `batch_size`."""

    def __init__(self, path: Path, shape: tuple[int, int, int, int], batch_size: int) -> None:
        self.path = path
        self.partial = path.with_name(f"{path.name}.partial")
        self.shape = shape
        self.batch_size = batch_size

    @property
    def num_finished(self) -> int:
        """How many images need not be made any more."""
        if self.is_finished():
            return self.shape[0]
        if not self.partial.is_file():
            return 0
        with self.partial.open("rb") as file:
            if file.read(len(self.header)) != self.header:
                return 0
        num_images = (self.partial.stat().st_size - len(self.header)) // self.bytes_per_image
        return num_images if num_images == self.shape[0] else num_images // self.batch_size * self.batch_size

    def is_finished(self) -> bool:
        """Whether all images are there, in a file that is whole and of this shape."""
        try:
            images = np.load(self.path, mmap_mode="r")
        except (FileNotFoundError, ValueError, EOFError):  # not there, cut short or damaged
            return False
        return images.shape == self.shape and images.dtype == np.uint8

    @property
    def bytes_per_image(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def header(self) -> bytes:
        """What stands before the pixels in a .npy file of this shape."""
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            buffer, {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": self.shape}
        )
        return buffer.getvalue()

    def fill(self, make: Callable[[slice], NDArray[np.uint8]], on_batch: Callable[[int], object]) -> None:
        """Add the missing images: `make(rows)` gives those of one batch, `on_batch` hears how many were added.

        A damaged file is made again. Raises UserError where another process is at it.
        """
        if self.is_finished():
            return
        with self.partial.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{self.path}: another process is making these images; wait for it") from None
            if self.is_finished():  # another process has just finished them
                return
            finished = self.num_finished
            file.truncate(len(self.header) + finished * self.bytes_per_image if finished else 0)
            if not finished:
                file.write(self.header)
            for start in range(finished, self.shape[0], self.batch_size):
                images = make(slice(start, start + self.batch_size))
                assert images.shape[1:] == self.shape[1:] and images.dtype == np.uint8, (images.shape, images.dtype)
                file.write(images.tobytes())
                file.flush()
                on_batch(len(images))
            os.fsync(file.fileno())
            self.partial.replace(self.path)

    def read(self) -> NDArray[np.uint8]:
        """The finished images, memory-mapped."""
        images: NDArray[np.uint8] = np.load(self.path, mmap_mode="r")
        assert images.shape == self.shape, (self.path, images.shape, self.shape)
        return images
