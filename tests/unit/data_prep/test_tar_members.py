"""data_prep/tar_members.py: fault F21 of the fault table, and F10 for tars that others made."""

import gc
import io
import itertools
import random
import tarfile
from pathlib import Path

import pytest

from data_prep.tar_members import Member, TarMembers
from ifvit.config.errors import UserError
from tests.made_tars import END, block, make_tar, padded, sized

CONTENT = {
    "0001.jpg": b"image" * 300,
    "./0001.txt": b"",
    "a" * 90 + "/" + "b" * 30 + "/0002.jpg": b"x" * 512,
    "ümlaut/猫.json": b"{}",
    "n" * 300 + ".txt": b"long",
}
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def members(path: Path) -> list[Member]:
    return list(TarMembers(path))


def as_tarfile_sees(path: Path) -> list[Member]:
    with tarfile.open(path) as tar:
        return [Member(member.name, member.offset_data, member.size) for member in tar if member.isfile()]


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_members_as_tarfile_finds(tmp_path: Path, name: str) -> None:
    content = {key: value for key, value in CONTENT.items() if name != "ustar" or len(key) < 250}
    path = make_tar(tmp_path / "a.tar", content, FORMATS[name])
    assert members(path) == as_tarfile_sees(path)
    assert [member.name for member in members(path)] == list(content)


def test_an_old_header_and_a_size_in_binary(tmp_path: Path) -> None:
    binary = block(b"big.jpg")
    binary = binary[:124] + b"\x80" + (5).to_bytes(11, "big") + binary[136:148] + b" " * 8 + binary[156:]
    binary = binary[:148] + b"%06o\0 " % sum(binary) + binary[156:]
    old = block(b"old.jpg", b"\0", 5)
    path = tmp_path / "a.tar"
    path.write_bytes(old + padded(b"12345") + block(b"folder/", b"\0") + binary + padded(b"12345") + END)
    assert members(path) == as_tarfile_sees(path) == [Member("old.jpg", 512, 5), Member("big.jpg", 2048, 5)]


def test_an_empty_tar(tmp_path: Path) -> None:
    assert members(make_tar(tmp_path / "a.tar", {})) == []


def with_member(kind: bytes, **values: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(sized(tarfile.TarInfo("good.jpg"), b"good"), io.BytesIO(b"good"))
        member = tarfile.TarInfo(values.pop("name", "member"))
        member.type = kind
        for name, value in values.items():
            setattr(member, name, value)
        tar.addfile(member)
    return buffer.getvalue()


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    return block(b"pax", kind, len(records)) + padded(records) + block(b"0001.jpg") + END


HOSTILE = {
    "link": (with_member(tarfile.SYMTYPE, linkname="/etc/passwd"), "member is a link"),
    "hard link": (with_member(tarfile.LNKTYPE, linkname="good.jpg"), "member is a link"),
    "long link": (with_member(tarfile.SYMTYPE, linkname="x" * 200), "is a link"),
    "device": (with_member(tarfile.CHRTYPE), "member is a device"),
    "disk": (with_member(tarfile.BLKTYPE), "member is a device"),
    "pipe": (with_member(tarfile.FIFOTYPE), "member is a pipe"),
    "sparse": (with_member(tarfile.GNUTYPE_SPARSE), "member is a sparse file"),
    "unknown": (with_member(b"Z"), "member is of the unknown kind b'Z'"),
    "above": (with_member(tarfile.REGTYPE, name="../x.jpg"), r"'\.\./x\.jpg' is not allowed"),
    "above inside": (with_member(tarfile.REGTYPE, name="a/../../x.jpg"), "is not allowed"),
    "folder above": (with_member(tarfile.DIRTYPE, name="../x"), "is not allowed"),
    "absolute": (block(b"/etc/x.jpg") + END, "'/etc/x.jpg' is not allowed"),
    "no name": (block(b"") + END, "'' is not allowed"),
    "long above": (with_member(tarfile.REGTYPE, name="a/" * 100 + "../" * 101 + "x.jpg"), "is not allowed"),
    "pax above": (pax(b"18 path=../../x.b\n"), r"'\.\./\.\./x\.b' is not allowed"),
    "pax NUL": (pax(b"12 path=a\0b\n"), "is not allowed"),
    "pax sparse": (pax(b"22 GNU.sparse.major=1\n"), "sparse file"),
    "pax for all": (pax(b"14 path=x.jpg\n", b"g"), "gives one path to all members"),
    "pax cut": (pax(b"99 path=x.jpg\n"), "an extended header is damaged"),
    "pax garbage": (pax(b"garbage"), "an extended header is damaged"),
    "pax huge": (block(b"pax", b"x", 8**11 - 1) + END, "an extended header has 8589934591 bytes, more than"),
    "endless name": (block(b"long", b"L", 2**20 + 1) + END, "an extended header has 1048577 bytes, more than"),
    "long name": (block(b"long", b"L", 5000) + padded(b"n" * 5000) + block(b"x") + END, "is not allowed"),
    "name for nothing": (block(b"long", b"L", 5) + padded(b"name\0") + END, "a member that does not follow"),
    "two tars": (block(b"x.jpg") + END + block(b"y.jpg") + END, "data behind the tar's end mark"),
    "escape": (with_member(tarfile.SYMTYPE, name="\x1b[31m"), r"\\x1b\[31m is a link"),
}


@pytest.mark.fault(
    "F21",
    injected="source tars with .., absolute names, links, devices, endless headers",
    detected="tar and byte are named",
    recovered="the tar must be replaced",
    lost="nothing; no file is written",
)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tar_is_refused_by_name_and_place(tmp_path: Path, name: str) -> None:
    content, message = HOSTILE[name]
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{path}: at byte \d+: .*{message}") as caught:
        members(path)
    assert str(caught.value).isprintable()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar"]


@pytest.mark.fault(
    "F10",
    injected="a source tar cut at nine kinds of offset",
    detected="an error names the tar and the byte",
    recovered="the tar must be restored, nothing was written",
    lost="nothing",
)
@pytest.mark.parametrize(
    "length, offset",
    [(0, 0), (100, 0), (512, 0), (700, 0), (1536, 1536), (1800, 1536), (2048, 1536), (2559, 1536), (2560, 2560)],
    ids=["empty", "header", "payload 0", "payload", "member", "header 2", "payload 2", "end 2", "end mark"],
)
def test_a_cut_tar_is_an_error_that_names_tar_and_offset(tmp_path: Path, length: int, offset: int) -> None:
    """Each member takes 3 blocks or 2; webdataset and tarfile take each of these tars for whole."""
    path = make_tar(tmp_path / "a.tar", {"0001.jpg": b"x" * 1000, "0001.txt": b"y" * 512})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=rf"^{path}: at byte {offset}: .*cut off"):
        members(path)


def test_of_a_hundred_flipped_header_bits_none_goes_unseen(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {f"{number:04d}.jpg": b"" for number in range(50)})
    whole, expected = path.read_bytes(), members(path)
    generator = random.Random(0)
    seen = 0
    for _ in range(100):
        content = bytearray(whole)
        content[generator.randrange(50 * 512)] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        try:
            assert members(path) == expected  # the checksum's own last byte may be anything
        except UserError as error:
            assert "at byte" in str(error)
            seen += 1
    assert seen >= 98


@pytest.mark.fault(
    "F21",
    injected="a tar of 100,000 members",
    detected="-",
    recovered="read one by one in bounded memory",
    lost="nothing",
)
def test_a_hundred_thousand_members_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        for number in range(100_000):
            file.write(block(b"%06d.jpg" % number))
        file.write(END)
    found = iter(TarMembers(path))
    assert len(list(itertools.islice(found, 1000))) == 1000
    before = len(gc.get_objects())
    assert sum(1 for _ in itertools.islice(found, 98_999)) == 98_999
    assert len(gc.get_objects()) - before < 100
    assert next(found).name == "099999.jpg"
    assert next(found, None) is None


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_a_compressed_tar_is_named_as_such(tmp_path: Path, mode: str) -> None:
    with tarfile.open(tmp_path / "a.tar", f"w:{mode}") as tar:  # type: ignore[call-overload]
        tar.addfile(tarfile.TarInfo("0001.jpg"))
    with pytest.raises(UserError, match=r"a\.tar: at byte 0: is compressed, and compressed tars are not read; unpack"):
        members(tmp_path / "a.tar")


def test_a_missing_tar(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.tar: cannot be opened \(No such file"):
        members(tmp_path / "a.tar")
