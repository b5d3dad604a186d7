"""ifvit/data/shard_format.py"""

import io

import numpy as np
import pytest

from ifvit.data.shard_format import FLOAT, IDS, member_span, npy_bytes, npy_size


@pytest.mark.parametrize("shape", [(8, 4, 4), (5, 77), (1,), (77, 768)])
@pytest.mark.parametrize("dtype", [FLOAT, IDS])
def test_arrays_are_what_numpy_saves_and_loads(shape: tuple[int, ...], dtype: np.dtype) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    saved = io.BytesIO()
    np.save(saved, array)
    content = npy_bytes(array)
    assert content == saved.getvalue()
    assert len(content) == npy_size(dtype, shape)
    loaded = np.load(io.BytesIO(content), allow_pickle=False)
    assert loaded.dtype == dtype
    assert np.array_equal(loaded, array)


def test_a_strided_array_is_stored_in_order() -> None:
    array = np.arange(12, dtype=IDS).reshape(3, 4).T
    assert np.array_equal(np.load(io.BytesIO(npy_bytes(array))), array)


def test_members_take_whole_blocks() -> None:
    assert [member_span(size) for size in (0, 1, 512, 513)] == [512, 1024, 1024, 1536]
