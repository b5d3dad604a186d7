"""The members of a tar that others made, found by reading its headers: any format that tar programs write.

Python's own tarfile ends silently at a damaged header and holds every member in memory; here damage is an error that
names the tar and the place, memory is that of one member, and links, devices and names that lead elsewhere are refused.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ifvit.config.errors import UserError, printable

BLOCK = 512
MAX_NAME = 4096  # bytes
MAX_EXTENSION = 2**20  # bytes of a pax header
REGULAR, FOLDER = (b"0", b"\0", b"7"), b"5"
LONG_NAME, PAX, GLOBAL_PAX = b"L", b"x", b"g"
COMPRESSED = re.compile(rb"\x1f\x8b|BZh[1-9]1AY&SY|\xfd7zXZ\0|\x28\xb5\x2f\xfd")  # gzip, bzip2, xz and zstd begin so
REFUSED = {
    b"1": "a link", b"2": "a link", b"K": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe",
    b"S": "a sparse file",
}  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A regular file in a tar."""

    name: str
    offset: int  # of its bytes
    size: int


@dataclass(frozen=True)
class Header:
    """One header block."""

    name: bytes
    size: int
    kind: bytes


class TarMembers:
    """Iterates over the regular files of `tar`. Raises UserError naming the tar and the byte where it is wrong."""

    def __init__(self, tar: Path) -> None:
        self.tar = tar

    def __iter__(self) -> Iterator[Member]:
        try:
            self.file = os.open(self.tar, os.O_RDONLY)
        except OSError as error:
            raise UserError(f"{self.tar}: cannot be opened ({error.strerror})") from error
        try:
            self.size = os.fstat(self.file).st_size
            if COMPRESSED.match(os.pread(self.file, BLOCK, 0)):
                raise self.error(0, "is compressed, and compressed tars are not read; unpack it to a .tar")
            yield from self.members()
        finally:
            os.close(self.file)

    def members(self) -> Iterator[Member]:
        offset = 0
        name: bytes | None = None  # of the next member, from a header of its own
        size: int | None = None
        while any(block := self.read(offset, BLOCK)):
            header = self.header(block, offset)
            payload = offset + BLOCK
            if header.kind in (LONG_NAME, PAX, GLOBAL_PAX):
                content = self.extension(header, offset)
                if header.kind == LONG_NAME:
                    name = content.partition(b"\0")[0]
                else:
                    name, size = self.pax_values(content, offset, name, size, is_global=header.kind == GLOBAL_PAX)
                offset = payload + padded(header.size)
                continue
            shown = self.checked_name(name or header.name, offset)
            is_folder = header.kind == FOLDER or (header.kind == b"\0" and shown.endswith("/"))
            if header.kind not in REGULAR and not is_folder:
                what = REFUSED.get(header.kind, f"of the unknown kind {header.kind!r}")
                raise self.error(offset, f"{printable(shown)} is {what}; only files and folders are allowed")
            length = 0 if is_folder else header.size if size is None else size
            if payload + length > self.size:
                raise self.error(offset, f"{printable(shown)} is cut off: the tar ends at byte {self.size}")
            if not is_folder:
                yield Member(shown, payload, length)
            offset = payload + padded(length)
            name = size = None
        if name is not None or size is not None:
            raise self.error(offset, "a name or size is given for a member that does not follow")
        self.check_end(offset)

    def read(self, offset: int, length: int) -> bytes:
        content = os.pread(self.file, length, offset)
        if len(content) < length:
            raise self.error(offset, f"the tar ends at byte {self.size} without its end mark: it is cut off")
        return content

    def check_end(self, offset: int) -> None:
        while rest := os.pread(self.file, MAX_EXTENSION, offset):
            if any(rest):
                raise self.error(offset, "there is data behind the tar's end mark; is it two tars in one file?")
            offset += len(rest)

    def header(self, block: bytes, offset: int) -> Header:
        blanked = block[:148] + b" " * 8 + block[156:]
        checksum = self.number(block[148:156], offset)
        # Some old programs add signed bytes.
        if checksum != sum(blanked) and checksum != sum(byte - 256 * (byte > 127) for byte in blanked):
            raise self.error(offset, "the header is damaged: its checksum differs")
        name = block[:100].partition(b"\0")[0]
        if block[257:263] == b"ustar\0" and (prefix := block[345:500].partition(b"\0")[0]):
            name = prefix + b"/" + name
        return Header(name, self.number(block[124:136], offset), block[156:157])

    def number(self, text: bytes, offset: int) -> int:
        if text[0] == 0x80:  # GNU's way to write what does not fit into octal digits
            return int.from_bytes(text[1:], "big")
        digits = text.partition(b"\0")[0].strip()
        if not re.fullmatch(rb"[0-7]*", digits):
            raise self.error(offset, "the header is damaged: it has no number where one must be")
        return int(digits or b"0", 8)

    def extension(self, header: Header, offset: int) -> bytes:
        if header.size > MAX_EXTENSION:
            raise self.error(offset, f"an extended header has {header.size} bytes, more than {MAX_EXTENSION}")
        return self.read(offset + BLOCK, header.size)

    def pax_values(
        self, content: bytes, offset: int, name: bytes | None, size: int | None, is_global: bool
    ) -> tuple[bytes | None, int | None]:
        """Name and size after a pax header, where it gives them."""
        while content:
            length, space, _ = content.partition(b" ")
            end = int(length) if re.fullmatch(rb"[0-9]{1,7}", length) else 0
            key, equals, value = content[len(length) + 1 : end - 1].partition(b"=")
            if not space or not equals or end > len(content) or content[end - 1 : end] != b"\n":
                raise self.error(offset, "an extended header is damaged")
            content = content[end:]
            if key.startswith(b"GNU.sparse"):
                raise self.error(offset, "holds a sparse file; only whole files and folders are allowed")
            if key in (b"path", b"size") and is_global:
                raise self.error(offset, f"gives one {key.decode()} to all members")
            if key == b"path":
                name = value
            elif key == b"size":
                if not re.fullmatch(rb"[0-9]{1,18}", value):
                    raise self.error(offset, "an extended header is damaged")
                size = int(value)
        return name, size

    def checked_name(self, name: bytes, offset: int) -> str:
        text = name.decode("utf-8", "backslashreplace")
        if not text or len(name) > MAX_NAME or "\0" in text or text.startswith("/") or ".." in text.split("/"):
            shown = printable(text[:100])
            raise self.error(offset, f"the member name '{shown}' is not allowed: it must be a path below the tar")
        return text

    def error(self, offset: int, what: str) -> UserError:
        return UserError(f"{self.tar}: at byte {offset}: {what}")


def padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
