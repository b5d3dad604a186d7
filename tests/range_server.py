"""A web server for tests of downloads: knows ranges, counts what it sends, and has the faults that a test asks for."""

import hashlib
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Cut:
    """After so many bytes of an answer, the connection ends, is reset, or brings nothing more."""

    position: int
    way: str = "ends"


@dataclass
class RangeServer:
    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)  # by path
    knows_ranges: bool = True
    validator: str | None = "ETag"  # the header that changes with the content
    gives_size: bool = True
    range_offset: int = 0  # ranges begin so far from where they should
    answers: list[int] = field(default_factory=list)  # the codes of the next answers, instead of what is asked for
    cuts: list[Cut] = field(default_factory=list)  # of the next answers to GET, one for each
    requests: list[str] = field(default_factory=list)  # "GET /a.zip 100-": method, path and range
    sent: int = 0  # bytes of files
    goes_on: threading.Event = field(default_factory=threading.Event)  # ends the waits of answers that bring nothing

    @property
    def downloads(self) -> list[str]:
        return [request for request in self.requests if request.startswith("GET")]


class Handler(BaseHTTPRequestHandler):
    state: RangeServer

    def do_HEAD(self) -> None:
        self.respond()

    def do_GET(self) -> None:
        self.respond()

    def log_message(self, *_: object) -> None:
        pass

    def respond(self) -> None:
        state = self.state
        content = state.files.get(self.path)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        state.requests.append(f"{self.command} {self.path}{f' {wanted[1]}-' if wanted else ''}")
        if state.answers or content is None:
            code = state.answers.pop(0) if state.answers else 404
            self.send_response(code, "Words\x1b[31m of the server")
            self.end_headers()
            return
        version = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        if wanted and state.knows_ranges and self.headers.get("If-Range", version) == version:
            start = int(wanted[1]) + state.range_offset
            if start >= len(content):
                self.send_response(416)
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if state.validator:
            self.send_header(state.validator, version)
        if state.gives_size:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET":
            self.send(content[start:])

    def send(self, content: bytes) -> None:
        cut = self.state.cuts.pop(0) if self.state.cuts else None
        content = content[: cut.position] if cut else content
        try:
            self.wfile.write(content)
            self.wfile.flush()
        except ConnectionError:  # whoever asked has seen enough
            return
        self.state.sent += len(content)
        if cut and cut.way == "stalls":
            self.state.goes_on.wait(20)
        if cut and cut.way == "is reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


@contextmanager
def running_server() -> Iterator[RangeServer]:
    """A server on 127.0.0.1 for as long as the block lasts."""
    state = RangeServer()
    handler = type("StateHandler", (Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            state.goes_on.set()
            server.shutdown()
            thread.join()
