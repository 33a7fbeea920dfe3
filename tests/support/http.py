"""HTTP servers of tests: one that takes callbacks, and a gateway that fails on demand."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Forward(_Quiet):
    server: Gateway

    def _forward(self) -> None:
        body = self.body()
        self.server.seen.append((self.command, self.path))
        if not self.server.hold_after:
            self._hold()
        if self.server.down:
            self.answer(503)
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.server.target_port, timeout=30)
        # The signature is over the host that the client asked.
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        data = response.read()
        if self.server.hold_after:
            self._hold()
        hop = {"content-length", "connection", "transfer-encoding", "date", "server"}
        headers = {name: value for name, value in response.getheaders() if name.lower() not in hop}
        if self.command == "HEAD":
            self.send_response(response.status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", response.getheader("Content-Length", "0"))
            self.end_headers()
        else:
            self.answer(response.status, data, headers)
        connection.close()

    def _hold(self) -> None:
        if self.server.is_held(self.command, self.path):
            self.server.held.set()
            self.server.released.wait(60)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward  # noqa: N815


class Gateway(ThreadingHTTPServer):
    """Hands requests on to another port of this machine."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, target_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.target_port = target_port
        self.port = self.server_port
        self.down = False
        """Answer 503 to everything."""
        self.is_held: Callable[[str, str], bool] = lambda method, path: False
        """Which requests wait until `open`."""
        self.hold_after = False
        """Hold the answer, and not the request."""
        self.held = threading.Event()
        self.released = threading.Event()
        self.seen: list[tuple[str, str]] = []

    def open(self) -> None:
        """Let held requests go on, and hold no more."""
        self.is_held = lambda method, path: False
        self.released.set()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the tests."""


class _Receive(_Quiet):
    server: Receiver

    def do_POST(self) -> None:
        body = self.body()
        with self.server.lock:
            self.server.calls.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            status, headers, wait_s = self.server.answers.pop(0) if self.server.answers else (200, {}, 0.0)
        self.server.ending.wait(wait_s)
        self.answer(status, b"", headers)

    do_GET = do_POST  # noqa: N815


class Receiver(ThreadingHTTPServer):
    """Takes callbacks; answers 200 unless told otherwise."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receive)
        self.lock = threading.Lock()
        self.calls: list[tuple[str, dict[str, str], bytes]] = []
        """(path, headers in lower case, body) of every request."""
        self.answers: list[tuple[int, dict[str, str], float]] = []
        """(status, headers, seconds to wait first) of the next answers."""
        self.ending = threading.Event()

    def __enter__(self) -> Receiver:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.shutdown()
        self.server_close()

    @property
    def host(self) -> str:
        """As in a list of allowed hosts."""
        return f"127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        """To be called."""
        return f"http://{self.host}/hook"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the tests."""
