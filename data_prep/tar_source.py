"""Samples from tars in WebDataset's form, numbered 0, 1, ... in the order of the tars' names and of their members.

Members that follow each other and have one name up to the first dot are one sample: an image, and its captions in
NAME.txt (one caption) or NAME.json ("caption", one text, or "prompts", a list), as img2dataset writes them. Other
members are counted and never opened.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from data_prep.bad_samples import count_ignored
from data_prep.folder_source import MAX_CAPTION_BYTES
from data_prep.listed_sample import IMAGE_SUFFIXES, NO_IMAGE, SEVERAL_IMAGES, ListedSample
from data_prep.tar_members import Member, TarMembers
from ifvit.config.errors import UserError, printable

MAX_JSON_BYTES = 2**20
KEY_AND_SUFFIX = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)


class TarSource:
    """The samples in the tars that match `patterns`."""

    field = "data.image_tars"
    change_hint = " (tars are listed by their path below the folder that all lie in: a second folder changes all)"

    def __init__(self, patterns: Sequence[str]) -> None:
        tars = [tar for pattern in patterns for tar in matching(pattern)]
        if len(set(tars)) < len(tars):
            raise UserError(f"data.image_tars: {Counter(tars).most_common(1)[0][0]} is matched twice")
        self.root = Path(os.path.commonpath([Path(tar).parent for tar in tars]))
        self.tars = sorted(
            (Path(tar).relative_to(self.root).as_posix() for tar in tars), key=lambda tar: tar.split("/")
        )
        self.ignored: Counter[str] = Counter()

    def fingerprint(self) -> str:
        """sha256 over names, sizes and times of the tars."""
        digest = hashlib.sha256()
        for tar in self.tars:
            stat = (self.root / tar).stat()
            digest.update(f"{json.dumps(tar)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return f"tars {digest.hexdigest()}"

    def samples(self) -> Iterator[ListedSample]:
        self.ignored.clear()
        id_ = 0
        for tar in self.tars:
            with (self.root / tar).open("rb") as file:
                for members in self.groups(self.root / tar):
                    if sample := self.sample(id_, tar, file, members):
                        yield sample
                        id_ += 1

    def groups(self, tar: Path) -> Iterator[dict[str, Member]]:
        """The members of interest of one sample after the other, by suffix."""
        key, group = "", dict[str, Member]()
        seen: set[bytes] = set()  # digests: a tar may have many long names
        for member in TarMembers(tar):
            match = KEY_AND_SUFFIX.fullmatch(member.name)
            suffix = f".{match[2].lower()}" if match else ""
            if match is None or suffix not in (*IMAGE_SUFFIXES, ".txt", ".json"):
                count_ignored(self.ignored, suffix)
                continue
            if match[1] != key:
                if group:
                    yield group
                key, group = match[1], {}
                digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
                if digest in seen:
                    raise twice(tar, member, "its sample began earlier; the members of a sample must be neighbors")
                seen.add(digest)
            if suffix in group:
                raise twice(tar, member, "it is there twice")
            group[suffix] = member
        if group:
            yield group

    def sample(self, id_: int, tar: str, file: IO[bytes], members: Mapping[str, Member]) -> ListedSample | None:
        """None where there is neither an image nor a caption file, but only some other JSON."""
        images = [member for suffix, member in members.items() if suffix in IMAGE_SUFFIXES]
        if not images and ".txt" not in members:
            count_ignored(self.ignored, ".json")
            return None
        captions = captions_of(file, members)
        if len(images) != 1:
            return ListedSample.with_captions(id_, tar, captions, SEVERAL_IMAGES if images else NO_IMAGE)
        (image,) = images
        return ListedSample.with_captions(id_, tar, captions, member=image.name, offset=image.offset, size=image.size)


def matching(pattern: str) -> list[str]:
    if "://" in pattern or pattern.startswith("pipe:"):
        raise UserError(f"data.image_tars: {pattern}: only tars on this machine can be read; download it")
    path = Path(pattern).absolute()
    candidates = [path] if path.is_file() else Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    found = [str(tar) for tar in candidates if tar.is_file()]
    if not found:
        raise UserError(f"data.image_tars: no file matches {pattern}; give a glob such as FOLDER/*.tar")
    return found


def twice(tar: Path, member: Member, why: str) -> UserError:
    return UserError(f"{tar}: at byte {member.offset}: {printable(member.name)}: {why}")


def captions_of(file: IO[bytes], members: Mapping[str, Member]) -> Sequence[object]:
    """The captions of a sample: the prompts in its JSON, else its text, else the caption in its JSON."""
    described: Any = {}
    if ".json" in members:
        described = json_value(file, members[".json"])
    if isinstance(described, dict) and isinstance(described.get("prompts"), list):
        return described["prompts"]
    if ".txt" in members:
        content = read(file, members[".txt"], MAX_CAPTION_BYTES)
        return [content.decode("utf-8", "surrogateescape").removeprefix("\ufeff").rstrip("\r\n")]
    if not isinstance(described, dict):
        return [None]
    caption = described.get("caption")
    return [] if caption is None else [caption]


def json_value(file: IO[bytes], member: Member) -> Any:
    """The content of a JSON member; None where it cannot be read as JSON."""
    try:
        return json.loads(read(file, member, MAX_JSON_BYTES).decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None


def read(file: IO[bytes], member: Member, max_bytes: int) -> bytes:
    return os.pread(file.fileno(), min(member.size, max_bytes), member.offset)
