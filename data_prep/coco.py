"""Downloads the images and captions of COCO 2014, 20 GB, and unpacks them into a folder that recipes can name.

The result is DIR/annotations/ beside DIR/train2014/ and DIR/val2014/. Whatever ends the command, the same line goes on
from there: a download where it stopped, a folder with the files that it lacks; a second start does nothing. Zips that
were put into DIR/downloads/ are checked and used, so a machine without a network can have them brought.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from data_prep.download import PartialFile, check_digest, download, remote_size
from data_prep.folder_lock import only_writer
from data_prep.unpacking import folder_size, partial_folder, require_free_space, unpack
from ifvit.config.errors import UserError
from ifvit.data.coco import check_all, coco_files, read_captions

URL = "http://images.cocodataset.org"  # its https shows another host's certificate; the digests guard the content
SPLITS = ("train", "val")
DOWNLOADS = "downloads"


@dataclass(frozen=True)
class Archive:
    """A zip on the server, and the one folder that is in it."""

    path: str
    folder: str
    md5: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


ARCHIVES = (
    Archive("annotations/annotations_trainval2014.zip", "annotations", "0a379cfc70b0e71301e0f377548639bd"),
    Archive("zips/train2014.zip", "train2014", "0da8c0bd3d6becc4dcb32757491aca88"),
    Archive("zips/val2014.zip", "val2014", "a3d79f5ed8d289b7a7554ce06a5782b3"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder to write")
    parser.add_argument(
        "--splits", nargs="+", choices=SPLITS, default=list(SPLITS), help="which images (default: both)"
    )
    parser.add_argument("--url", metavar="BASE", default=URL, help=f"a mirror with the same zips (default: {URL})")
    parser.add_argument("--keep-zips", action="store_true", help="in DIR/downloads; else each is removed once unpacked")


def run(args: argparse.Namespace) -> None:
    make_coco(args.out, args.splits, args.url, args.keep_zips)


def make_coco(
    folder: Path, splits: Sequence[str], url: str, keep_zips: bool = False, archives: Sequence[Archive] = ARCHIVES
) -> None:
    """Bring what is missing of the splits to `folder`, and print a summary. Raises UserError."""
    url = checked_url(url)
    folders = {"annotations", *(f"{split}2014" for split in splits)}
    wanted = [archive for archive in archives if archive.folder in folders]
    try:
        with only_writer(folder, "--out"):
            missing = [archive for archive in wanted if not (folder / archive.folder).is_dir()]
            require_room(folder, missing, url, keep_zips)
            for archive in wanted:
                if archive in missing:
                    bring(archive, folder, url)
                if not keep_zips:  # also one that a start left which was killed just before this line
                    remove_zip(archive, folder)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written: {error.strerror or error}") from error
    for split in dict.fromkeys(splits):
        there = "" if any(archive.folder == f"{split}2014" for archive in missing) else " (were there already)"
        print(f"{folder / f'{split}2014'}: {content_text(folder, split)}{there}")


def checked_url(url: str) -> str:
    """`url` without a slash at its end. Raises UserError where it is no web address."""
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").encode("idna"), parts.port  # both raise ValueError
        is_good = parts.scheme in ("http", "https") and host and not parts.query and not parts.fragment
        is_good = is_good and "@" not in parts.netloc and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        is_good = False
    if not is_good:
        raise UserError(f"--url: is {url!r}, must be an address such as {URL}")
    return url.rstrip("/")


def require_room(folder: Path, missing: Sequence[Archive], url: str, keep_zips: bool) -> None:
    """Raises UserError where the disk cannot hold what is to come: each zip and, as large at least, what is in it."""
    used = most = 0
    for archive in missing:
        file = folder / DOWNLOADS / archive.name
        if file.is_file():
            size = file.stat().st_size
        else:
            size = remote_size(f"{url}/{archive.path}") or 0
            used += max(size - PartialFile(file).position, 0)
        used += max(size - folder_size(partial_folder(folder / archive.folder)), 0)
        most = max(most, used)
        used -= 0 if keep_zips else size
    require_free_space(folder, most)


def bring(archive: Archive, folder: Path, url: str) -> None:
    """Make the archive's folder, from the zip in downloads or else from the server."""
    file = folder / DOWNLOADS / archive.name
    if not file.is_file():
        file.parent.mkdir(exist_ok=True)
        download(f"{url}/{archive.path}", file)
    check_digest(file, archive.md5)
    unpack(file, folder / archive.folder)


def remove_zip(archive: Archive, folder: Path) -> None:
    """Remove the archive's zip, and the folder of downloads with the last one."""
    downloads = folder / DOWNLOADS
    file = downloads / archive.name
    partial = PartialFile(file)
    for path in (file, partial.path, partial.version_file):
        path.unlink(missing_ok=True)
    if downloads.is_dir() and not any(downloads.iterdir()):
        downloads.rmdir()


def content_text(folder: Path, split: str) -> str:
    """What recipes will find. Raises UserError where a folder that was there already is not as COCO's."""
    try:
        file, images = coco_files(folder, split)
        names, captions = read_captions(file)
        missing = [f"{id_} ({images / name})" for id_, name in names.items() if not (images / name).is_file()]
        check_all("images whose file is missing", missing, file)
    except UserError as error:
        raise UserError(f"{error}; delete what is wrong in {folder} and run the same command again") from error
    return f"{len(names):,} images, {sum(map(len, captions.values())):,} captions"
