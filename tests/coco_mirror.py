"""A web server that has COCO's archives, of drawn images."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import ZipFile

from data_prep.coco import ARCHIVES, Archive, make_coco
from tests.range_server import RangeServer, running_server


@dataclass
class Mirror:
    server: RangeServer
    source: Path  # the folder that is served
    archives: list[Archive]

    @property
    def size(self) -> int:
        return sum(map(len, self.server.files.values()))

    def make(self, folder: Path, splits: tuple[str, ...] = ("train", "val"), keep_zips: bool = False) -> None:
        make_coco(folder, splits, self.server.url, keep_zips, self.archives)

    def serve(self, archive: Archive, content: bytes) -> None:
        """Other content for one archive, with its digest."""
        self.server.files[f"/{archive.path}"] = content
        place = [each.name for each in self.archives].index(archive.name)
        self.archives[place] = replace(archive, md5=hashlib.md5(content).hexdigest())

    def content(self, archive: Archive) -> bytes:
        return self.server.files[f"/{archive.path}"]


@contextmanager
def running_mirror(source: Path) -> Iterator[Mirror]:
    """Of the folders in `source`, for as long as the block lasts."""
    with running_server() as server:
        mirror = Mirror(server, source, list(ARCHIVES))
        for archive in ARCHIVES:
            mirror.serve(archive, zipped(source, archive.folder))
        yield mirror


def zipped(root: Path, folder: str) -> bytes:
    """A zip as COCO's: the folder has an entry of its own."""
    content = io.BytesIO()
    with ZipFile(content, "w") as archive:
        for path in [root / folder, *sorted((root / folder).iterdir())]:
            archive.write(path, path.relative_to(root))
    return content.getvalue()
