"""Images of each type, and servers that hand them out well and badly."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}


def picture(extension: str = "jpg", *, side: int = 24, colour: int = 0) -> bytes:
    """A small image; equal arguments give equal bytes."""
    made = Image.new("RGB", (side, side), (colour % 256, 90, 200))
    made.putpixel((3, 5), (250, colour // 256 % 256, 0))
    out = io.BytesIO()
    made.save(out, FORMATS[extension])
    return out.getvalue()


class Answers(BaseHTTPRequestHandler):
    """Hands every GET to the server's `answer`, and notes its path and headers first."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.requests.append((self.path, dict(self.headers)))
            self.server.under_way += 1
            self.server.most_under_way = max(self.server.most_under_way, self.server.under_way)
        try:
            self.server.answer(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with self.server.lock:
                self.server.under_way -= 1

    def send(self, body: bytes, status: int = 200, **headers: str) -> None:
        """A whole answer; underscores in names of headers stand for dashes."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def dribble(self, body: bytes, pause_s: float) -> None:
        """A whole answer, one byte at a time, until the server or the client has enough."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for byte in body:
            if self.server.ending.wait(pause_s):
                break
            self.wfile.write(bytes([byte]))

    def hang(self) -> None:
        """No answer before the server ends."""
        self.server.ending.wait(60)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """An HTTP server on a loopback address."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: Callable[[Answers], None]) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.answer = answer
        self.lock = threading.Lock()
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.under_way = self.most_under_way = 0
        self.ending = threading.Event()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def paths(self) -> list[str]:
        """What was asked for so far."""
        return [path for path, _ in self.requests]


@contextmanager
def serving(answer: Callable[[Answers], None]) -> Iterator[Server]:
    """A server that runs until the end of the block."""
    server = Server(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.ending.set()
        server.shutdown()
        thread.join()
        server.server_close()


def later(seconds: float, act: Callable[[], None]) -> threading.Thread:
    """Do something in another thread after a while; returns the started thread."""

    def wait() -> None:
        time.sleep(seconds)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread
