"""data_prep/decoding.py"""

import errno
from pathlib import Path

import pytest
import torch

from data_prep import decoding
from data_prep.decoding import decoded_batches
from data_prep.listed_sample import ListedSample
from ifvit.config.errors import UserError
from ifvit.data.images import BadImageError
from tests.drawn_coco import draw_image


@pytest.fixture
def samples(tmp_path: Path) -> list[ListedSample]:
    for number in range(7):
        draw_image(tmp_path / f"{number}.jpg", number)
    (tmp_path / "3.jpg").write_text("no image")
    listed = [ListedSample(number, f"{number}.jpg", ("a",)) for number in range(8)]
    return [*listed, ListedSample(8, "8.jpg", (), fault="no captions")]


def test_batches_in_order_with_what_is_wrong_in_its_place(samples: list[ListedSample], tmp_path: Path) -> None:
    batches = list(decoded_batches(samples, tmp_path, 16, 4))
    assert [[sample.id for sample in listed] for listed, _ in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    outcomes = [outcome for _, decoded in batches for outcome in decoded]
    reasons = {number: outcome.reason for number, outcome in enumerate(outcomes) if isinstance(outcome, BadImageError)}
    assert reasons == {3: "not an image", 7: "missing file"}
    assert outcomes[8] is None
    alone = [outcome for _, decoded in decoded_batches(samples, tmp_path, 16, 1) for outcome in decoded]
    assert all(torch.equal(alone[number], outcomes[number]) for number in (0, 1, 2, 4, 5, 6))


def test_the_next_batches_are_decoded_meanwhile(
    samples: list[ListedSample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    monkeypatch.setattr(decoding, "load_pixels", lambda image, size: decoded.append(image.id) or torch.zeros(()))
    batches = decoded_batches(samples[:8] * 100, tmp_path, 16, 2)
    next(batches)
    assert len(decoded) <= 2 * (1 + decoding.BATCHES_AHEAD)
    batches.close()


def test_storage_that_fails_ends_it(
    samples: list[ListedSample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise UserError(f"reading it fails ({errno.EIO})")

    monkeypatch.setattr(decoding, "load_pixels", failing)
    with pytest.raises(UserError, match="reading it fails"):
        list(decoded_batches(samples, tmp_path, 16, 2))


def test_nothing_to_decode(tmp_path: Path) -> None:
    assert list(decoded_batches([], tmp_path, 16, 2)) == []
