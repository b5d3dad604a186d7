"""data_prep/folder_source.py"""

import json
import os
from pathlib import Path

import pytest

from data_prep.folder_source import MAX_TEXT_BYTES, FolderSource
from data_prep.listed_sample import ListedSample
from ifvit.config.errors import UserError


def listed(root: Path) -> list[ListedSample]:
    return list(FolderSource(str(root)).samples())


def write(root: Path, **files: bytes | str) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def test_images_at_any_depth_in_the_order_of_their_paths(tmp_path: Path) -> None:
    root = write(
        tmp_path, b__a_jpg="1", b__a_txt="one\ntwo\n", a_JPEG="22", a_txt="three", c_png="", c_txt="four", b0_webp="x"
    )
    write(root, **{"_hidden_jpg": "", "_git__x_jpg": "", "readme_md": "", "b__data": ""})
    source = FolderSource(str(root))
    samples = list(source.samples())
    assert [(sample.id, sample.image, sample.size, sample.prompts) for sample in samples] == [
        (0, "a.JPEG", 2, ("three",)),
        (1, "b/a.jpg", 1, ("one", "two")),
        (2, "b0.webp", 1, ()),
        (3, "c.png", 0, ("four",)),
    ]
    assert samples[2].fault == "no captions"
    assert source.ignored == {".md": 1, "(no suffix)": 1}


def test_captions_without_an_image_are_counted(tmp_path: Path) -> None:
    root = write(tmp_path, a_txt="one", b__a_jpg="1", b__c_txt="two", d_JPG="1", d_txt="three", e_md="", e_txt="four")
    source = FolderSource(str(root))
    assert [sample.image for sample in source.samples()] == ["b/a.jpg", "d.JPG"]
    assert source.ignored == {".txt without an image": 3, ".md": 1}


@pytest.mark.parametrize(
    "text, prompts, dropped",
    [
        ("\ufeffone\r\ntwo\r\n", ("one", "two"), {}),
        ("one\n\n\n", ("one",), {}),
        ("one\n\ntwo", ("one", "two"), {"empty": 1}),
        ("one\u2028still one\x0b", ("one\u2028still one\x0b",), {}),
        (b"one\ncaf\xe9\n", ("one",), {"invalid utf-8": 1}),
        ("\n".join(map(str, range(50))), tuple(map(str, range(50))), {}),
        ("one\n" + "a" * 100_000, ("one",), {"too long": 1}),
        ("a\n" * MAX_TEXT_BYTES, (), {"too long": 1}),
        ("", (), {"empty": 1}),
    ],
)
def test_captions_are_lines(tmp_path: Path, text: str | bytes, prompts: tuple[str, ...], dropped: dict) -> None:
    (sample,) = listed(write(tmp_path, a_jpg="x", a_txt=text))
    assert (sample.prompts, dict(sample.dropped)) == (prompts, dropped)


def metadata(root: Path, *rows: object) -> Path:
    return write(root, metadata_jsonl="\n".join(json.dumps(row) for row in rows) + "\n")


def test_the_rows_of_metadata_jsonl_are_the_samples(tmp_path: Path) -> None:
    root = metadata(
        write(tmp_path, z_jpg="", unnamed_jpg="", unnamed_txt="never read"),
        {"file_name": "z.jpg", "text": "one"},
        {"file_name": "train/a.jpg", "text": ["two", "", "three"], "width": 5},
        {"file_name": "gone.jpg"},
        {"file_name": "train.x/a.jpg", "text": [4]},
    )
    samples = listed(root)
    assert [(sample.id, sample.image, sample.prompts, dict(sample.dropped)) for sample in samples] == [
        (0, "gone.jpg", (), {}),
        (1, "train/a.jpg", ("two", "three"), {"empty": 1}),
        (2, "train.x/a.jpg", (), {"not text": 1}),
        (3, "z.jpg", ("one",), {}),
    ]


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"file_name": "../x.jpg", "text": "a"}', r"line 1: file_name is '\.\./x\.jpg', must name a file below"),
        (
            '{"file_name": "../%s"}' % ("x" * 10**5),
            r"line 1: file_name is '\.\./x{100,200}\.\.\., must name a file below",
        ),
        ('{"file_name": "/etc/passwd"}', r"line 1: file_name is '/etc/passwd'"),
        ('\n{"text": "a"}', "line 2: file_name is None"),
        ('{"file_name": "a.jpg"}\n{"file_name": "a.jpg"}', r"line 2: 'a\.jpg' is listed twice"),
        ('{"file_name": "a.jpg"}\n{"file_na', "line 2: is no JSON object"),
        ("[1]", "line 1: is no JSON object"),
        ("[" * 100_000, "line 1: is no JSON object"),
        ("x" * (MAX_TEXT_BYTES + 1), "line 1: has more than"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"metadata\.jsonl: {message}"):
        listed(write(tmp_path, metadata_jsonl=content))


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path, elsewhere__a_jpg="x", elsewhere__a_txt="one", images__b_jpg="x", images__b_txt="two")
    (tmp_path / "images" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images" / "broken.jpg").symlink_to("nowhere")
    samples = listed(tmp_path / "images")
    assert [(sample.image, sample.size) for sample in samples] == [
        ("b.jpg", 1),
        ("broken.jpg", None),
        ("link/a.jpg", 1),
    ]
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "images")
    with pytest.raises(UserError, match=r"^data\.image_folder: .*back is a link to a folder that it lies in"):
        listed(tmp_path / "images")


def test_names_in_any_encoding(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("a cat")
    (sample,) = listed(tmp_path)
    assert ListedSample.from_row(sample.row()) == sample
    assert sample.captioned_image(tmp_path).path.read_bytes() == b"x"
    assert sample.place == "caf\\udce9.jpg"


@pytest.mark.parametrize(
    "change",
    [
        lambda root: write(root, new_jpg=""),
        lambda root: (root / "a.jpg").unlink(),
        lambda root: (root / "a.jpg").rename(root / "c.jpg"),
        lambda root: write(root, a_jpg="longer"),
        lambda root: os.utime(root / "a.txt", ns=(1, 1)),
        lambda root: write(root, b_txt="new"),
        lambda root: metadata(root, {"file_name": "a.jpg"}),
    ],
)
def test_the_fingerprint_sees_what_the_listing_sees(tmp_path: Path, change) -> None:
    root = write(tmp_path, a_jpg="x", a_txt="one", b_jpg="x")
    before = FolderSource(str(root)).fingerprint()
    assert FolderSource(str(root)).fingerprint() == before
    change(root)
    assert FolderSource(str(root)).fingerprint() != before


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.image_folder: .*gone is no folder"):
        FolderSource(str(tmp_path / "gone"))
