"""data_prep/listed_sample.py"""

from pathlib import Path

import pytest

from data_prep.listed_sample import ListedSample

SAMPLES = [
    ListedSample.with_captions(7, "a/b.jpg", ["one", "\x1b[31mzwei 猫"]),
    ListedSample.with_captions(0, "a.tar", ["", "one"], member="x.jpg", offset=512, size=0),
    ListedSample.with_captions(1, "a.jpg", [], size=5),
    ListedSample.with_captions(2, "caf\udce9.jpg", ["\udcff", "one"]),
]


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_row_is_one_line_of_ascii_and_reads_back(sample: ListedSample) -> None:
    row = sample.row()
    assert row.isascii()
    assert (row.count(b"\n"), row[-1:]) == (1, b"\n")
    assert ListedSample.from_row(row) == sample


def test_a_sample_without_a_usable_caption_is_faulty() -> None:
    sample = ListedSample.with_captions(3, "a.jpg", ["", "\0"])
    assert (sample.fault, sample.dropped) == ("no captions", {"NUL character": 1, "empty": 1})
    assert ListedSample.with_captions(3, "a.tar", [], "several images").fault == "several images"


def test_where_the_image_is(tmp_path: Path) -> None:
    whole, member = (sample.captioned_image(tmp_path) for sample in SAMPLES[:2])
    assert (whole.id, whole.path, whole.span) == (7, tmp_path / "a" / "b.jpg", None)
    assert (member.path, member.span) == (tmp_path / "a.tar", (512, 0))
    assert [sample.place for sample in SAMPLES[1:]] == ["a.tar/x.jpg", "a.jpg", "caf\\udce9.jpg"]
