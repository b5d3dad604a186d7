"""Unpacks a zip into a folder that appears when it is whole. A second start goes on where a killed one stopped."""

import os
import shutil
import stat
import zlib
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from ifvit.config.errors import UserError
from ifvit.runtime.progress import Progress

CHUNK_SIZE = 1 << 20


def partial_folder(folder: Path) -> Path:
    """Where the files of `folder` are until all of them are there."""
    return folder.with_name(f".{folder.name}.partial")


def unpack(archive: Path, folder: Path) -> None:
    """Make `folder` of the archive's members, which must all be below the folder of that name. Raises UserError."""
    partial = partial_folder(folder)
    try:
        with ZipFile(archive) as content:
            members = plain_files(content, archive, folder.name)
            require_free_space(partial.parent, sum(member.file_size for member in members) - folder_size(partial))
            partial.mkdir(exist_ok=True)
            with Progress(len(members), f"unpacking {archive.name}", unit="files") as progress:
                for member in members:
                    write_member(content, member, partial.joinpath(*PurePosixPath(member.filename).parts[1:]))
                    progress.advance()
    except (BadZipFile, EOFError, RuntimeError, zlib.error) as error:  # RuntimeError: encrypted or oddly compressed
        raise UserError(f"{archive}: cannot be unpacked: {error}; delete it and run the same command again") from error
    os.sync()  # the name promises that all is there, also after the machine went down; one call for all the files
    partial.replace(folder)


def plain_files(content: ZipFile, archive: Path, top: str) -> list[ZipInfo]:
    """The files in the archive. Raises UserError where a name leads elsewhere than below `top`, or to no plain file."""
    seen: set[tuple[str, ...]] = set()
    files: list[ZipInfo] = []
    for member in content.infolist():
        parts = PurePosixPath(member.filename).parts
        if parts[:1] != (top,) or ".." in parts or (len(parts) == 1 and not member.is_dir()):
            raise UserError(f"{archive}: refused, {member.filename!r} is not below {top}/")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{archive}: refused, {member.filename!r} is a link or a device")
        if not member.is_dir():
            if parts in seen:
                raise UserError(f"{archive}: refused, {member.filename!r} is in it twice")
            seen.add(parts)
            files.append(member)
    return files


def write_member(content: ZipFile, member: ZipInfo, file: Path) -> None:
    """Write the member to `file`, unless an earlier start has done so."""
    if file.is_file() and file.stat().st_size == member.file_size and checksum(file) == member.CRC:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with content.open(member) as source, file.open("wb") as target:
        shutil.copyfileobj(source, target, CHUNK_SIZE)


def checksum(file: Path) -> int:
    crc = 0
    with file.open("rb") as content:
        while chunk := content.read(CHUNK_SIZE):
            crc = zlib.crc32(chunk, crc)
    return crc


def folder_size(folder: Path) -> int:
    """Bytes of the files in `folder`, 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def require_free_space(folder: Path, needed: int) -> None:
    """Raises UserError where the disk of `folder` has no room for `needed` more bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{folder}: {needed:,} bytes are needed here, {free:,} are free; make room or use another disk")
