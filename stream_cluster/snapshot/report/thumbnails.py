"""Thumbnails by processes that may be lost: an image that kills its decoder is a broken image."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType

from stream_cluster.model import Interrupt

_COMMAND = (sys.executable, "-P", "-m", "stream_cluster.snapshot.report.thumbnail_worker")
_ANSWER_TIMEOUT_S = 20.0
_POLL_S = 0.2
_MOST_WORKERS = 4
_MOST_THUMBNAIL_BYTES = 1 << 24


class Thumbnailer:
    """Makes thumbnails of images. Close it, also when something was raised; use from one thread."""

    def __init__(
        self,
        pixels: int,
        interrupt: Interrupt,
        command: tuple[str, ...] = _COMMAND,
        answer_timeout_s: float = _ANSWER_TIMEOUT_S,
    ) -> None:
        """`pixels`: longer side of a thumbnail. `command` gets it as its last argument."""
        self._interrupt = interrupt
        count = min(_MOST_WORKERS, len(os.sched_getaffinity(0)))
        self._workers = [_Worker((*command, str(pixels)), answer_timeout_s) for _ in range(count)]
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._free.put(worker)
        self._pool = ThreadPoolExecutor(count, "thumbnails")

    def make(self, images: Iterable[Callable[[], bytes]]) -> Iterator[bytes]:
        """A JPEG of each image, in order; empty for one that cannot be decoded.

        Each is read when its turn comes.

        Raises:
            Cancelled, TaskError: by `interrupt`; noticed within a second.
        """
        window: deque[Future[bytes]] = deque()
        for read in images:
            if len(window) == 4 * len(self._workers):
                yield self._result(window.popleft())
            window.append(self._pool.submit(self._one, read()))
        while window:
            yield self._result(window.popleft())

    def close(self) -> None:
        """End the processes; what is under way is lost."""
        for worker in self._workers:
            worker.kill()
        self._pool.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.end()

    def __enter__(self) -> Thumbnailer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _one(self, data: bytes) -> bytes:
        worker = self._free.get()
        try:
            return worker.ask(data)
        finally:
            self._free.put(worker)

    def _result(self, future: Future[bytes]) -> bytes:
        while True:
            self._interrupt.check()
            if wait([future], _POLL_S).done:
                return future.result()


class _Worker:
    """One process, started when it is first asked, and again after it was lost."""

    def __init__(self, command: tuple[str, ...], answer_timeout_s: float) -> None:
        self._command = command
        self._answer_timeout_s = answer_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def ask(self, data: bytes) -> bytes:
        """The thumbnail; empty when there is none, or the process was lost or slow."""
        if self._process is None:
            if self._closed:
                return b""
            self._process = self._start()
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(struct.pack("<I", len(data)) + data)
            self._process.stdin.flush()
            return self._answer(self._process)
        except OSError:  # a TimeoutError and an end of the output too
            self.end()
            return b""

    def kill(self) -> None:
        """End the process for good. May be called while another thread waits for it, which then ends too."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()

    def _start(self) -> subprocess.Popen[bytes]:
        # Nothing of the environment: a process that decodes hostile bytes holds no secret.
        environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us alone
        )

    def _answer(self, process: subprocess.Popen[bytes]) -> bytes:
        ends_at = time.monotonic() + self._answer_timeout_s
        assert process.stdout is not None
        output = process.stdout.fileno()
        (length,) = struct.unpack("<I", _read(output, 4, ends_at))
        if length > _MOST_THUMBNAIL_BYTES:
            raise OSError("an answer that is no thumbnail")
        return _read(output, length, ends_at)

    def end(self) -> None:
        """End the process; the next image gets another one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _read(descriptor: int, length: int, ends_at: float) -> bytes:
    """Exactly so many bytes. Raises OSError at the end of the stream and when the time is over."""
    data = bytearray()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while len(data) < length:
        # Not `select`, which knows no descriptors above 1023.
        if not poll.poll(max(0.0, ends_at - time.monotonic()) * 1000):
            raise TimeoutError
        block = os.read(descriptor, length - len(data))
        if not block:
            raise OSError("the process has ended")
        data += block
    return bytes(data)
