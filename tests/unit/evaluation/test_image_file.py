"""ifvit/evaluation/image_file.py"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ifvit.config.errors import UserError
from ifvit.evaluation.image_file import ImageFile

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), dtype=np.uint8)
SHAPE = (7, 4, 5, 3)


class StoppedError(Exception):
    pass


class Maker:
    """Gives rows of IMAGES, and stops before the batch that begins at `stop`."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop = stop
        self.starts: list[int] = []
        self.counts: list[int] = []

    def __call__(self, rows: slice) -> NDArray[np.uint8]:
        if rows.start == self.stop:
            raise StoppedError
        self.starts.append(rows.start)
        return IMAGES[rows]


def fill(file: ImageFile, stop: int | None = None) -> Maker:
    maker = Maker(stop)
    try:
        file.fill(maker, maker.counts.append)
    except StoppedError:
        assert stop is not None
    return maker


def test_whole_file_is_numpy_s_own_and_memory_mapped(tmp_path: Path) -> None:
    file = ImageFile(tmp_path / "images.npy", SHAPE, batch_size=3)
    maker = fill(file)
    assert (maker.starts, maker.counts) == ([0, 3, 6], [3, 3, 1])
    assert isinstance(file.read(), np.memmap)
    assert np.array_equal(np.load(file.path), IMAGES)
    assert [path.name for path in tmp_path.iterdir()] == ["images.npy"]
    np.save(tmp_path / "expected.npy", IMAGES)
    assert file.path.read_bytes() == (tmp_path / "expected.npy").read_bytes()
    assert fill(file).starts == []


def test_a_later_start_makes_only_the_missing_batches(tmp_path: Path) -> None:
    file = ImageFile(tmp_path / "images.npy", SHAPE, batch_size=3)
    fill(file, stop=3)
    assert file.num_finished == 3 and not file.path.exists()
    assert fill(file).starts == [3, 6]
    assert np.array_equal(file.read(), IMAGES)


@pytest.mark.parametrize("lost", [1, 61, 10**9])
def test_a_torn_batch_is_made_again_whole(lost: int, tmp_path: Path) -> None:
    """Also where the process was killed in the middle of a batch, or of the header."""
    file = ImageFile(tmp_path / "images.npy", SHAPE, batch_size=3)
    fill(file, stop=6)
    size = file.partial.stat().st_size
    with file.partial.open("r+b") as partial:
        partial.truncate(max(5, size - lost))
    assert file.num_finished == (0 if lost > size else 3)
    fill(file)
    assert np.array_equal(file.read(), IMAGES)


@pytest.mark.parametrize("size", [0, 5, 200, -1])
def test_a_finished_file_that_was_cut_short_is_made_again(size: int, tmp_path: Path) -> None:
    """In the header, in the pixels, or by its last byte."""
    file = ImageFile(tmp_path / "images.npy", SHAPE, batch_size=3)
    fill(file)
    file.path.write_bytes(file.path.read_bytes()[:size])
    assert not file.is_finished() and file.num_finished == 0
    assert fill(file).starts == [0, 3, 6]
    assert np.array_equal(file.read(), IMAGES)


@pytest.mark.parametrize("content", [IMAGES[:6], IMAGES.astype(np.float32), b"no images at all"])
def test_a_file_of_something_else_is_made_again(content: NDArray[Any] | bytes, tmp_path: Path) -> None:
    file = ImageFile(tmp_path / "images.npy", SHAPE, batch_size=3)
    if isinstance(content, bytes):
        file.path.write_bytes(content)
    else:
        np.save(file.path, content)
    assert file.num_finished == 0
    fill(file)
    assert np.array_equal(file.read(), IMAGES)


def test_unfinished_images_of_another_shape_are_made_again(tmp_path: Path) -> None:
    file = ImageFile(tmp_path / "images.npy", SHAPE, batch_size=3)
    fill(file, stop=6)
    content = file.partial.read_bytes()
    file.partial.write_bytes(content.replace(b"(7, 4, 5, 3)", b"(7, 5, 4, 3)"))
    assert file.num_finished == 0
    file.partial.write_bytes(content)
    assert file.num_finished == 6


def test_images_are_on_the_disk_before_they_have_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ImageFile(tmp_path / "images.npy", SHAPE, batch_size=3)
    synced: list[tuple[int, bool]] = []
    monkeypatch.setattr("os.fsync", lambda handle: synced.append((os.fstat(handle).st_size, file.path.exists())))
    fill(file)
    assert synced[-1] == (file.path.stat().st_size, False)


def test_all_images_but_the_rename(tmp_path: Path) -> None:
    file = ImageFile(tmp_path / "images.npy", SHAPE, batch_size=3)
    fill(file)
    file.path.rename(file.partial)
    assert file.num_finished == 7
    assert fill(file).starts == []
    assert np.array_equal(file.read(), IMAGES)


def test_only_one_process_at_a_time(tmp_path: Path) -> None:
    file, other = (ImageFile(tmp_path / "images.npy", SHAPE, batch_size=7) for _ in range(2))

    def make(rows: slice) -> NDArray[np.uint8]:
        with pytest.raises(UserError, match=r"images\.npy: another process is making these images; wait for it"):
            fill(other)
        return IMAGES[rows]

    file.fill(make, lambda count: None)
    assert np.array_equal(file.read(), IMAGES)
