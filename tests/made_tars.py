"""Tars that tests write: whole ones, and headers of every kind."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path


def make_tar(path: Path, members: Mapping[str, bytes], format_: int = tarfile.GNU_FORMAT) -> Path:
    """A tar of regular files, in the order of `members`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format_) as tar:
        for name, content in members.items():
            tar.addfile(sized(tarfile.TarInfo(name), content), io.BytesIO(content))
    return path


def sized(member: tarfile.TarInfo, content: bytes) -> tarfile.TarInfo:
    member.size = len(content)
    return member


def block(name: bytes, kind: bytes = b"0", size: int = 0) -> bytes:
    """A header, with its checksum."""
    fields = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"0" * 11 + b"\0"
    header = (fields + b" " * 8 + kind).ljust(257, b"\0") + b"ustar\x0000"
    header = header.ljust(512, b"\0")
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 512)


END = b"\0" * 1024
