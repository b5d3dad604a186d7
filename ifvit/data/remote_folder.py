"""The files of a remote folder, through fsspec, and what they are called where people read it.

An address may carry a password or a signature (https://user:password@host/folder?sig=...): what is printed or raised
here names a file without them, and repeats no other words of a library or a server.
"""

import errno
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, urlsplit

from fsspec import get_filesystem_class
from fsspec.callbacks import Callback

from ifvit.config.errors import UserError, printable
from ifvit.runtime.http_status import PASSING_STATUS, PAUSES, status_text
from ifvit.runtime.standard_error import say

HOSTED = {"https", "http", "s3", "gs", "gcs", "az", "abfs"}
PROTOCOLS = HOSTED | {"file", "memory"}
LONG_PAUSES = (*PAUSES, 15.0, 30.0, 60.0, 60.0, 60.0)  # while a run trains, which an outage should not end
MAX_INDEX_SIZE = 2_000_000_000  # of an index.json; a million shards have 0.3 GB
CONNECT_SECONDS = 30.0
READ_SECONDS = 60.0  # so long without a byte is a lost connection
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
TRANSPORTS = {"aiohttp", "aiobotocore", "botocore", "fsspec", "gcsfs", "s3fs", "adlfs", "azure"}


class StoppedError(Exception):
    """The cache was closed while one of its threads was fetching."""


class TooLongError(Exception):
    """More bytes have come than the file has."""


class RemoteFolder:
    """Reads the files of one folder. Any number of threads may use it.

    Raises UserError where the address is none, or needs a package that is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            has_place = bool(parts.hostname if parts.scheme in HOSTED else parts.netloc or parts.path)
            is_address = has_place and (parts.port or 1) > 0 and not parts.fragment
        except ValueError:  # its text may have a part of a password
            is_address = False
        if not is_address or parts.scheme not in PROTOCOLS:
            raise UserError(
                "data.shards_root: is no address such as https://host/folder or s3://bucket/folder; in a password, "
                "characters such as / and # are written %2F and %23"
            )
        self.protocol = parts.scheme
        self.netloc = parts.netloc
        self.path = parts.path.rstrip("/")
        self.query = parts.query
        try:
            self.files = get_filesystem_class(self.protocol)(**options(self.protocol))
        except ImportError as error:
            fix = "pip install 'ifvit[s3]'" if self.protocol == "s3" else printable(str(error))
            raise UserError(f"{self.name()}: {self.protocol}:// needs a package that is missing: {fix}") from error

    def name(self, file: str = "") -> str:
        """The address of the folder, or of a file in it, without what may be secret."""
        host = self.netloc.rpartition("@")[2]
        return printable("/".join([f"{self.protocol}://{host}{self.path}", *([file] if file else [])]))

    def address(self, file: str) -> str:
        path = f"{self.path}/{file}"
        if self.protocol in ("http", "https"):
            path = quote(path, safe="/%:@!$&'()*+,;=~")
        return f"{self.protocol}://{self.netloc}{path}{'?' if self.query else ''}{self.query}"

    def read(self, file: str, max_size: int = MAX_INDEX_SIZE) -> bytes:
        """The content of a file that is kept in memory. Raises UserError where it is not to be had or is larger."""
        with TemporaryDirectory(prefix="ifvit-remote-") as folder:
            path = Path(folder) / "file"
            self.copy(file, path, max_size, threading.Event(), PAUSES)
            content = path.read_bytes()
        if len(content) > max_size:
            raise UserError(f"{self.name(file)}: has more than {max_size:,} bytes; is this the right address?")
        return content

    def copy(
        self, file: str, path: Path, size: int, stop: threading.Event, pauses: Sequence[float] | None = None
    ) -> None:
        """Write the file to `path`: at most little more than `size` bytes, and perhaps fewer.

        Raises UserError where it is not to be had, StoppedError once `stop` is set. `pauses` None: LONG_PAUSES.
        """
        watch = Watch(size, stop)

        def copied() -> None:
            watch.value = 0
            try:
                self.files.get_file(self.address(file), str(path), callback=watch)
            except TooLongError:
                return

        self.tried(file, stop, copied, LONG_PAUSES if pauses is None else pauses)

    def tried(self, file: str, stop: threading.Event, fetch: Callable[[], None], pauses: Sequence[float]) -> None:
        """Calls `fetch` until it succeeds, as often as `pauses` allow."""
        for pause in (*pauses, None):
            try:
                fetch()
                return
            except StoppedError:
                raise
            except Exception as error:
                if (lasting := lasting_fault(error)) is not None:
                    raise UserError(f"{self.name(file)}: {lasting}") from None
                if (fault := passing_fault(error)) is None:
                    raise
            if pause is not None:
                say(f"{self.name(file)}: {fault}; trying again in {pause:g} s")
                if stop.wait(pause):
                    raise StoppedError
        raise UserError(f"{self.name(file)}: {fault}, after {len(pauses) + 1} tries; start again when it can be read")


class Watch(Callback):
    """Ends a download that brings more than `size` bytes, or is no longer wanted."""

    def __init__(self, size: int, stop: threading.Event) -> None:
        super().__init__()
        self.limit = size
        self.stop = stop

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        if self.value > self.limit:
            raise TooLongError
        if self.stop.is_set():
            raise StoppedError


def lasting_fault(error: Exception) -> str | None:
    """What no other try will mend, None where one may."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and status not in PASSING_STATUS:
        return f"the server answers {status_text(status)}; is this the right address?"
    if isinstance(error, FileNotFoundError):
        return "there is no such file; is this the right address?"
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:  # botocore's are no PermissionError
        return "it may not be read; is this the right address, and are you signed in?"
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return f"cannot be written to data.cache_dir ({error.strerror})"
    return None


def passing_fault(error: Exception) -> str | None:
    """What another try may not meet: no connection, a lost one, a busy server. None for what is no such fault."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return f"the server answers {status_text(status)}"
    packages = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    if isinstance(error, OSError) or packages & TRANSPORTS:
        return f"the connection failed ({getattr(error, 'strerror', None) or type(error).__name__})"
    return None


def options(protocol: str) -> dict[str, Any]:
    """What a file system is made with, beyond its own defaults."""
    if protocol not in ("http", "https"):
        return {}
    from aiohttp import ClientTimeout

    # By default aiohttp gives a download five minutes in all, and looks at no proxy.
    timeout = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}, "encoded": True}
