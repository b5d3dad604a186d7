"""data_prep/tar_source.py"""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import webdataset

from data_prep.listed_sample import ListedSample
from data_prep.tar_source import TarSource
from ifvit.config.errors import UserError
from tests.made_tars import make_tar


def listed(*patterns: Path | str) -> list[ListedSample]:
    return list(TarSource([str(pattern) for pattern in patterns]).samples())


def test_a_set_as_img2dataset_writes_it(tmp_path: Path) -> None:
    for shard in (1, 0):  # in no order
        content = {}
        for number in range(3):
            key = f"{shard:05d}{number:04d}"
            caption = f"caption {key}"
            content |= {
                f"{key}.jpg": b"image" + key.encode(),
                f"{key}.json": json.dumps({"caption": caption, "width": 3, "url": "http://x"}).encode(),
                f"{key}.txt": caption.encode(),
            }
        make_tar(tmp_path / f"{shard:05d}.tar", content)
        (tmp_path / f"{shard:05d}.parquet").write_bytes(b"not read")
    samples = listed(tmp_path / "*.tar")
    assert [sample.id for sample in samples] == list(range(6))
    assert [sample.place for sample in samples[:4:3]] == ["00000.tar/000000000.jpg", "00001.tar/000010000.jpg"]
    assert samples[4].prompts == ("caption 000010001",)
    image = samples[4].captioned_image(tmp_path)
    assert image.span is not None
    assert image.path.read_bytes()[image.span[0] :][: image.span[1]] == b"image000010001"
    tars = sorted(map(str, tmp_path.glob("*.tar")))
    keys = [sample["__key__"] for sample in webdataset.WebDataset(tars, shardshuffle=False)]
    assert [Path(sample.member or "").stem for sample in samples] == keys


@pytest.mark.parametrize(
    "members, prompts",
    [
        ({"a.txt": b"  a cat\n\n"}, ("  a cat",)),
        ({"a.txt": "\ufeffa cat\r\n".encode()}, ("a cat",)),
        ({"a.txt": b"two\nlines"}, ("two\nlines",)),
        ({"a.json": b'{"caption": "a cat"}'}, ("a cat",)),
        ({"a.json": b'{"prompts": ["one", "two"]}'}, ("one", "two")),
        ({"a.json": b'{"prompts": ["one", "two"], "caption": "three"}', "a.txt": b"four"}, ("one", "two")),
        ({"a.json": b'{"caption": "other"}', "a.txt": b"a cat"}, ("a cat",)),
        ({"a.json": b"[" * 100_000, "a.txt": b"a cat"}, ("a cat",)),
        ({"a.JSON": b'{"caption": "a cat"}'}, ("a cat",)),
        ({"a.cls": b"3", "a.txt": b"a cat"}, ("a cat",)),
    ],
)
def test_captions(tmp_path: Path, members: dict[str, bytes], prompts: tuple[str, ...]) -> None:
    (sample,) = listed(make_tar(tmp_path / "a.tar", {"a.jpg": b"", **members}))
    assert (sample.prompts, sample.fault, dict(sample.dropped)) == (prompts, None, {})


@pytest.mark.parametrize(
    "members, fault, dropped",
    [
        ({"a.jpg": b"x"}, "no captions", {}),
        ({"a.jpg": b"x", "a.json": b'{"caption": null}'}, "no captions", {}),
        ({"a.jpg": b"x", "a.json": b'{"caption": 5}'}, "no captions", {"not text": 1}),
        ({"a.jpg": b"x", "a.json": b"{"}, "no captions", {"not text": 1}),
        ({"a.jpg": b"x", "a.json": b'["a"]'}, "no captions", {"not text": 1}),
        ({"a.jpg": b"x", "a.json": b"[" * 100_000}, "no captions", {"not text": 1}),
        ({"a.jpg": b"x", "a.json": b'{"caption": "' + b" " * 2**20 + b'"}'}, "no captions", {"not text": 1}),
        ({"a.jpg": b"x", "a.txt": b"a" * 2**20}, "no captions", {"too long": 1}),
        ({"a.jpg": b"x", "a.txt": b"caf\xe9"}, "no captions", {"invalid utf-8": 1}),
        ({"a.jpg": b"x", "a.json": b'{"prompts": ["", "a\\u0000"]}'}, "no captions", {"empty": 1, "NUL character": 1}),
        ({"a.jpg": b"x", "a.png": b"x", "a.txt": b"a cat"}, "several images", {}),
        ({"a.txt": b"a cat"}, "no image beside the captions", {}),
    ],
)
def test_a_bad_sample_keeps_its_number(tmp_path: Path, members: dict[str, bytes], fault: str, dropped: dict) -> None:
    path = make_tar(tmp_path / "a.tar", {**members, "b.jpg": b"x", "b.txt": b"a dog"})
    bad, good = listed(path)
    assert (bad.id, bad.fault, bad.dropped) == (0, fault, dropped)
    assert (good.id, good.fault) == (1, None)


@pytest.mark.fault(
    "F20",
    injected="pickles beside the images of a source tar",
    detected="counted by kind, never opened",
    recovered="the images are used",
    lost="nothing; no code runs",
)
def test_members_of_other_kinds_are_counted_and_never_opened(tmp_path: Path) -> None:
    """Fault F20: pickles in a tar."""
    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(marker),)

    hostile = pickle.dumps(Payload())
    suffixes = ("pyd", "pkl", "pth", "npy", "npz", "safetensors")
    members = {f"a.{suffix}": hostile for suffix in suffixes} | {"a.jpg": b"x", "a.txt": b"a cat", "README": b""}
    source = TarSource([str(make_tar(tmp_path / "a.tar", members | {"stats.json": b"{}"}))])
    (sample,) = source.samples()
    assert sample.prompts == ("a cat",)
    assert source.ignored == {f".{suffix}": 1 for suffix in suffixes} | {"(no suffix)": 1, ".json": 1}
    assert not marker.exists()


@pytest.mark.parametrize(
    "members, message",
    [
        (["a.jpg", "b.jpg", "a.txt"], r"a\.txt: its sample began earlier"),
        (["a.jpg", "a.JPG"], r"a\.JPG: it is there twice"),
    ],
)
def test_a_sample_in_pieces_is_an_error(tmp_path: Path, members: list[str], message: str) -> None:
    path = make_tar(tmp_path / "a.tar", dict.fromkeys(members, b"x"))
    with pytest.raises(UserError, match=rf"^{path}: at byte \d+: {message}"):
        listed(path)


def test_names_may_repeat_in_another_tar_or_folder(tmp_path: Path) -> None:
    for name in ("x/a.tar", "y/a.tar"):
        make_tar(tmp_path / name, {"one/a.jpg": b"", "one/a.txt": b"1", "two.x/a.jpg": b"", "two.x/a.txt": b"2"})
    samples = listed(tmp_path / "*/a.tar")
    assert [(sample.image, sample.prompts) for sample in samples] == [
        ("x/a.tar", ("1",)), ("x/a.tar", ("2",)), ("y/a.tar", ("1",)), ("y/a.tar", ("2",)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "patterns, message",
    [
        (["{}/*.tgz"], r"no file matches .*\.tgz; give a glob"),
        (["{}/a.tar", "{}/*.tar"], r"a\.tar is matched twice"),
        (["https://host/a.tar"], "only tars on this machine"),
        (["s3://bucket/a.tar"], "only tars on this machine"),
        (["pipe:touch executed"], "only tars on this machine"),
    ],
)
def test_patterns_that_give_no_tars(tmp_path: Path, patterns: list[str], message: str) -> None:
    make_tar(tmp_path / "a.tar", {})
    with pytest.raises(UserError, match=rf"^data\.image_tars: .*{message}"):
        TarSource([pattern.format(tmp_path) for pattern in patterns])


def test_a_name_with_glob_characters_is_a_name(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "läufe [1]" / "a*.tar", {"a.jpg": b"x", "a.txt": b"1"})
    assert len(listed(path)) == 1


def test_the_fingerprint_sees_other_tars_and_the_rows_do_not_see_where_they_lie(tmp_path: Path) -> None:
    make_tar(tmp_path / "x" / "a.tar", {"a.jpg": b"x", "a.txt": b"1"})
    pattern = str(tmp_path / "x" / "*.tar")
    first = TarSource([pattern]).fingerprint()
    assert TarSource([pattern]).fingerprint() == first
    os.utime(tmp_path / "x" / "a.tar", ns=(1, 1))
    touched = TarSource([pattern]).fingerprint()
    make_tar(tmp_path / "x" / "b.tar", {"a.jpg": b"x", "a.txt": b"1"})
    assert len({first, touched, TarSource([pattern]).fingerprint()}) == 3
    rows = [sample.row() for sample in listed(pattern)]
    shutil.move(tmp_path / "x", tmp_path / "elsewhere")
    assert [sample.row() for sample in listed(tmp_path / "elsewhere" / "*.tar")] == rows
