"""Thumbnails by processes that may be lost: an image that kills its decoder is a broken image."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType

from stream_cluster.model import Interrupt

_COMMAND = (sys.executable, "-P", "-m", "stream_cluster.snapshot.report.thumbnail_worker")
_ANSWER_TIMEOUT_S = 20.0
_POLL_S = 0.2
_MOST_WORKERS = 4
_MOST_THUMBNAIL_BYTES = 1 << 24
# Images under way: enough that no process waits while this one does something else.
_MOST_IMAGES = 64
_MOST_BYTES = 8 << 20
_PIPE_BYTES = 1 << 20
# Answers are gathered for so long before they are taken: who is woken by each of them takes time from those
# who make the next.
_NAP_S = 0.003
_LENGTH = struct.Struct("<I")


@dataclass(slots=True)
class _Asked:
    """An image, and what came of it."""

    data: bytes
    made: bytes | None = None
    """None until it is answered; empty when it cannot be decoded."""


class Thumbnailer:
    """Makes thumbnails of images. Close it, also when something was raised; use from one thread.

    That thread alone moves what goes in and out of the processes, in turns: a thread for each of them spends
    as much on the others' turns as a small image costs.
    """

    def __init__(
        self,
        pixels: int,
        interrupt: Interrupt,
        command: tuple[str, ...] = _COMMAND,
        answer_timeout_s: float = _ANSWER_TIMEOUT_S,
    ) -> None:
        """`pixels`: longer side of a thumbnail. `command` gets it as its last argument.

        `answer_timeout_s`: a process that says nothing for so long while it is asked something is lost.
        """
        self._interrupt = interrupt
        self._answer_timeout_s = answer_timeout_s
        count = min(_MOST_WORKERS, len(os.sched_getaffinity(0)))
        self._workers = [_Worker((*command, str(pixels))) for _ in range(count)]

    def start(self) -> None:
        """Start the processes, which takes as long as a few hundred images; else the first images do."""
        for worker in self._workers:
            worker.start()

    def make(self, images: Iterable[Callable[[], bytes]]) -> Iterator[bytes]:
        """A JPEG of each image, in order; empty for one that cannot be decoded.

        Each is read when its turn comes; 8 MiB of them are held, and one more.

        Raises:
            Cancelled, TaskError: by `interrupt`; noticed within a second.
        """
        window: deque[_Asked] = deque()
        held = 0
        for read in images:
            one = _Asked(read())
            window.append(one)
            held += len(one.data)
            min(self._workers, key=lambda worker: worker.unsaid_bytes).ask(one)
            while len(window) > _MOST_IMAGES or held > _MOST_BYTES:
                self._turn()
                while window and window[0].made is not None:
                    held -= len(window[0].data)
                    yield window.popleft().made or b""
        while window:
            while window[0].made is None:
                self._turn()
            yield window.popleft().made or b""

    def close(self) -> None:
        """End the processes; what is under way is lost."""
        for worker in self._workers:
            worker.end()

    def __enter__(self) -> Thumbnailer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _turn(self) -> None:
        """Wait until some process can read or has written, and move what there is."""
        self._interrupt.check()
        busy = [worker for worker in self._workers if worker.is_asked]
        # Not `select`, which knows no descriptors above 1023.
        poll = select.poll()
        for worker in busy:
            worker.register(poll)
        time.sleep(_NAP_S)
        began = time.monotonic()
        ready = {descriptor for descriptor, _ in poll.poll(1000 * _POLL_S)}
        # Only what is waited here counts: whoever takes the thumbnails may take his time.
        waited_s = time.monotonic() - began
        for worker in busy:
            worker.move(ready, waited_s, self._answer_timeout_s)


class _Worker:
    """One process, started when it is first asked, and again after it was lost."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: deque[_Asked] = deque()
        """What is not answered, in the order in which it is asked."""
        self._unsent: deque[memoryview] = deque()
        self._received = bytearray()
        self._silent_s = 0.0
        self.unsaid_bytes = 0
        """Bytes of images without an answer."""

    @property
    def is_asked(self) -> bool:
        """Whether there is an answer to wait for."""
        return bool(self._asked)

    def ask(self, one: _Asked) -> None:
        """Send this image when there is room."""
        self._asked.append(one)
        self.unsaid_bytes += len(one.data)
        self._queue(one)

    def _answered(self, made: bytes) -> None:
        one = self._asked.popleft()
        one.made = made
        self.unsaid_bytes -= len(one.data)

    def _queue(self, one: _Asked) -> None:
        self._unsent.append(memoryview(_LENGTH.pack(len(one.data)) + one.data))

    def register(self, poll: select.poll) -> None:
        """Add what to wait for."""
        stdin, stdout = self._pipes()
        poll.register(stdout, select.POLLIN)
        if self._unsent:
            poll.register(stdin, select.POLLOUT)

    def move(self, ready: set[int], waited_s: float, answer_timeout_s: float) -> None:
        """Send and receive what can be; then it is lost if it is silent for too long."""
        stdin, stdout = self._pipes()
        try:
            if stdout in ready:
                self._receive(stdout)
            if stdin in ready:
                self._send(stdin)
        except OSError:
            self._lose()
            return
        if ready & {stdin, stdout}:
            self._silent_s = 0.0
        else:
            self._silent_s += waited_s
            if self._silent_s > answer_timeout_s:
                self._lose()

    def _send(self, stdin: int) -> None:
        while self._unsent:
            first = self._unsent.popleft()
            try:
                sent = os.write(stdin, first)
            except BlockingIOError:
                sent = 0
            if sent < len(first):
                self._unsent.appendleft(first[sent:])
                return

    def _receive(self, stdout: int) -> None:
        """Take answers. Raises OSError at the end of the stream, and for what is none."""
        block = os.read(stdout, _PIPE_BYTES)
        if not block:
            raise OSError("the process has ended")
        self._received += block
        begin = 0
        while len(self._received) - begin >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received, begin)
            if length > _MOST_THUMBNAIL_BYTES or not self._asked:
                raise OSError("an answer that is no thumbnail")
            end = begin + _LENGTH.size + length
            if end > len(self._received):
                break
            self._answered(bytes(self._received[begin + _LENGTH.size : end]))
            begin = end
        del self._received[:begin]

    def _lose(self) -> None:
        """The image that was under way has no thumbnail; the others are asked of another process."""
        assert self._process is not None
        self._process.kill()
        # What it had said before is no worse for that.
        with contextlib.suppress(OSError):
            while True:
                self._receive(self._pipes()[1])
        self.end()
        if self._asked:
            self._answered(b"")
        for one in self._asked:
            self._queue(one)

    def _pipes(self) -> tuple[int, int]:
        process = self.start()
        assert process.stdin is not None
        assert process.stdout is not None
        return process.stdin.fileno(), process.stdout.fileno()

    def start(self) -> subprocess.Popen[bytes]:
        """The process, started if there is none."""
        if self._process is None:
            # Nothing of the environment: a process that decodes hostile bytes holds no secret.
            environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
            self._process = subprocess.Popen(
                self._command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C is for us alone
            )
            stdin, stdout = self._pipes()
            for pipe in (stdin, stdout):
                os.set_blocking(pipe, False)
                # A machine may allow less; then there are more turns.
                with contextlib.suppress(OSError):
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return self._process

    def end(self) -> None:
        """End the process; the next image gets another one."""
        process, self._process = self._process, None
        self._unsent.clear()
        self._received.clear()
        self._silent_s = 0.0
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
