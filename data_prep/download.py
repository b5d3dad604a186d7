"""Downloads large files over HTTP(S), and goes on where an earlier try or a killed start stopped.

The bytes so far are in {file}.partial, and which version of the server's file they belong to in {file}.partial.json.
"""

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ifvit.config.errors import UserError, printable
from ifvit.runtime.files import write_atomically
from ifvit.runtime.http_status import PASSING_STATUS, PAUSES, status_text
from ifvit.runtime.progress import Progress

CHUNK_SIZE = 1 << 20
MEGABYTE = 1_000_000
TIMEOUT_SECONDS = 60.0  # so long without a byte is a lost connection
SIZE = r"(\d{1,18})"


class PassingError(Exception):
    """What another try may not meet: no connection, a lost one, a busy server."""


@dataclass(frozen=True)
class Version:
    """What the server says of its file: the size, and the ETag or date that changes with the content."""

    size: int | None
    validator: str | None


class PartialFile:
    """What has arrived of a file, and of which version of it."""

    def __init__(self, file: Path) -> None:
        self.path = file.with_name(f"{file.name}.partial")
        self.version_file = file.with_name(f"{file.name}.partial.json")

    @property
    def position(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def version(self) -> Version | None:
        try:
            return Version(**json.loads(self.version_file.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    @property
    def is_whole(self) -> bool:
        version = self.version
        return version is not None and self.position == version.size

    def range_headers(self) -> dict[str, str]:
        """They ask for the rest, and for all of the file where it is another version by now."""
        version, position = self.version, self.position
        if version is None or position == 0 or (version.size is not None and position > version.size):
            return {}
        headers = {"Range": f"bytes={position}-"}
        return headers | ({"If-Range": version.validator} if version.validator else {})

    def is_continued_by(self, response: HTTPResponse) -> bool:
        """Whether an answer with a part of the file begins where this one ends, as far as the server says it."""
        found = re.fullmatch(rf"bytes {SIZE}-{SIZE}/(?:{SIZE}|\*)", response.headers.get("Content-Range", ""))
        version = self.version
        if found is None or version is None or int(found[1]) != self.position:
            return False
        return found[3] is None or version.size in (None, int(found[3]))

    def begin(self, version: Version | None) -> None:
        """Drop what is there; bytes of `version` come next. Emptied first: a kill in between mixes nothing."""
        self.path.write_bytes(b"")
        write_atomically(self.version_file, json.dumps(asdict(version) if version else None).encode())

    def become(self, file: Path) -> None:
        self.path.replace(file)
        self.version_file.unlink(missing_ok=True)


class Patience:
    """Waits before another try of `url`, longer each time, until too many in a row have brought nothing new."""

    def __init__(self, url: str, position: int = 0) -> None:
        self.url = url
        self.furthest = position
        self.pauses = iter(PAUSES)

    def wait(self, fault: PassingError, position: int = 0) -> None:
        if position > self.furthest:
            self.furthest, self.pauses = position, iter(PAUSES)
        pause = next(self.pauses, None)
        if pause is None:
            raise UserError(
                f"{self.url}: {fault}, after {len(PAUSES) + 1} tries; run the same command again, it goes on from there"
            ) from fault
        print(f"{self.url}: {fault}; trying again in {pause:g} s", file=sys.stderr, flush=True)
        time.sleep(pause)


def remote_size(url: str) -> int | None:
    """The size of the file at `url`; None where the server does not tell. Raises UserError where it is not there."""
    patience = Patience(url)
    while True:
        try:
            with answer(url, "HEAD") as response:
                return version_of(response).size
        except HTTPError as error:
            if error.code in (HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED):
                return None
            raise refusal(url, error) from None
        except PassingError as fault:
            patience.wait(fault)


def download(url: str, file: Path) -> None:
    """Bring what is missing of `url`; `file` appears when it is whole. Raises UserError when the server gives up."""
    partial = PartialFile(file)
    patience = Patience(url, partial.position)
    while not partial.is_whole:
        try:
            receive(url, partial)
            break
        except PassingError as fault:
            patience.wait(fault, partial.position)
    partial.become(file)


def receive(url: str, partial: PartialFile) -> None:
    """One try: all the bytes to come, or PassingError; what came until then stays."""
    try:
        response = answer(url, "GET", partial.range_headers())
    except HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise refusal(url, error) from None
        partial.begin(None)
        raise PassingError("the file there is another one than before") from None
    with response:
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            partial.begin(version_of(response))
        elif not partial.is_continued_by(response):
            partial.begin(None)
            raise PassingError("the file there is another one than before")
        append(response, partial, url.rpartition("/")[2])


def append(response: HTTPResponse, partial: PartialFile, name: str) -> None:
    version, position = partial.version, partial.position
    size = version.size if version else None
    progress = Progress((size or 0) // MEGABYTE, name, unit="MB", initial=position // MEGABYTE)
    with progress, partial.path.open("ab") as file:
        while chunk := next_chunk(response):
            file.write(chunk)
            position += len(chunk)
            progress.advance(position // MEGABYTE - progress.done)
        file.flush()
        os.fsync(file.fileno())
    if size not in (None, position):
        raise PassingError(f"the connection ended after {position:,} of {size:,} bytes")


def next_chunk(response: HTTPResponse) -> bytes:
    """What has arrived, empty at the end. Apart from writing, whose faults no further try can mend."""
    try:
        return response.read1(CHUNK_SIZE)
    except (OSError, HTTPException) as error:
        raise PassingError(reason(error)) from error


def answer(url: str, method: str, headers: Mapping[str, str] | None = None) -> HTTPResponse:
    """The server's answer. Raises PassingError, and HTTPError where the server has refused for good."""
    try:
        return urlopen(Request(url, headers=dict(headers or {}), method=method), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code in PASSING_STATUS:
            raise PassingError(f"the server answers {status_text(error.code)}") from None
        raise
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a redirection to what is no address
        raise PassingError(reason(error)) from error


def version_of(response: HTTPResponse) -> Version:
    headers = response.headers
    size = headers.get("Content-Length", "")
    etag = headers.get("ETag", "")
    # A weak ETag names equivalent files, not equal bytes, so it cannot guard a range.
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")
    is_usable = validator.isascii() and validator.isprintable()
    return Version(int(size) if re.fullmatch(SIZE, size) else None, validator if validator and is_usable else None)


def refusal(url: str, error: HTTPError) -> UserError:
    return UserError(f"{url}: the server answers {status_text(error.code)}; is this the right address?")


def reason(error: Exception) -> str:
    """What went wrong with a connection, on one short line whatever the server sent."""
    cause = error.reason if isinstance(error, URLError) else error
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return printable(text[:200])


def check_digest(file: Path, md5: str) -> None:
    """Removes `file` and raises UserError where its content has another digest."""
    digest = hashlib.md5(usedforsecurity=False)  # against damage; machines in FIPS mode allow no other use
    progress = Progress(file.stat().st_size // MEGABYTE, f"checking {file.name}", unit="MB")
    with progress, file.open("rb") as content:
        while chunk := content.read(CHUNK_SIZE):
            digest.update(chunk)
            progress.advance(content.tell() // MEGABYTE - progress.done)
    if digest.hexdigest() != md5:
        file.unlink()
        raise UserError(
            f"{file}: has md5 {digest.hexdigest()}, must have {md5}; it was removed, "
            "run the same command again to download it anew"
        )
