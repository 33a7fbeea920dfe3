"""Inputs named on a command line: files, gzipped or not, and standard input, read line by line."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import select
import stat
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from stream_cluster.errors import InputError
from stream_cluster.model import Interrupt

STDIN = "-"
_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGIC = b"PK"
_BUFFER_BYTES = 1 << 20
_POLL_MS = 200
_MAX_ROW_BYTES = 1 << 16

OnBytes = Callable[[int], None]
"""Called with the number of bytes just read from an input, before decompression."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input, looked at but not yet read."""

    name: str
    """As messages show it."""
    path: Path | None
    """None for standard input."""
    size_bytes: int | None
    """None when it is not known before the end: standard input, pipes."""
    kind: Literal["lines", "vectors"]


def find_sources(names: Sequence[str]) -> list[Source]:
    """Check that every input can be read before any of them is. `-` is standard input.

    Raises:
        InputError: a file is missing, unreadable or not what its name says; standard input is named twice.
    """
    if list(names).count(STDIN) > 1:
        raise InputError("found - more than once, expected standard input at most once")
    return [_find(name) for name in names]


def _find(name: str) -> Source:
    if name == STDIN:
        return Source("standard input", None, None, "lines")
    path = Path(name)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{name}: found a directory, expected a file")
        if not stat.S_ISREG(status.st_mode):
            return Source(name, path, None, "lines")  # looking into a pipe would take its bytes away
        with path.open("rb") as file:
            head = file.read(2)
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}") from error
    suffix = path.suffix.lower()
    if suffix == ".npz" and head != _ZIP_MAGIC:
        raise InputError(f"{name}: not an .npz file: it does not begin like a zip archive")
    if suffix == ".gz" and head != _GZIP_MAGIC:
        raise InputError(f"{name}: not a gzip file: it does not begin like one")
    return Source(name, path, status.st_size, "vectors" if head == _ZIP_MAGIC else "lines")


def read_lines(
    source: Source, max_line_bytes: int, interrupt: Interrupt, on_bytes: OnBytes
) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line without its end) of each line that is not blank.

    Gzip is recognised by its first bytes. Of a line longer than `max_line_bytes`, that many bytes and one
    more are given, so that memory stays bounded and the reader sees that it is too long.

    Raises:
        InputError: the input cannot be read, or its compressed data is damaged.
        Cancelled: asked to stop, also while waiting for input.
    """
    number = 0
    try:
        with _open(source) as raw:
            buffered = io.BufferedReader(_Metered(raw, interrupt, on_bytes), _BUFFER_BYTES)
            first = buffered.peek(2)[:1]
            if first == _ZIP_MAGIC[:1]:
                raise InputError(f"{source.name}: an .npz cannot be read from a pipe, expected JSON lines")
            # The first of the two bytes tells already: no line of JSON begins with it.
            packed = first == _GZIP_MAGIC[:1]
            stream = cast("Any", gzip.GzipFile(fileobj=buffered, mode="rb") if packed else buffered)
            while line := stream.readline(max_line_bytes + 2):
                number += 1
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if len(line) > max_line_bytes and not line.endswith(b"\n"):
                    _skip_line(stream)
                text = line.rstrip(b"\r\n")[: max_line_bytes + 1]
                if text and not text.isspace():
                    yield number, text
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{source.name}: damaged gzip data after line {number}: {error}") from error
    except OSError as error:
        raise InputError(f"{source.name}: cannot be read: {error.strerror or error}") from error


def read_rows(source: Source, interrupt: Interrupt, on_bytes: OnBytes) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number from 1, fields) of each line of CSV in UTF-8 that is not blank, the header included.

    A field may be quoted, but not hold the end of a line.

    Raises:
        InputError: as `read_lines`; a line is not CSV.
        Cancelled: asked to stop.
    """
    for number, line in read_lines(source, _MAX_ROW_BYTES, interrupt, on_bytes):
        try:
            yield number, next(csv.reader([line.decode()], strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{source.name}:{number}: not CSV in UTF-8: {error}") from error


def _skip_line(stream: Any) -> None:
    while rest := stream.readline(_BUFFER_BYTES):
        if rest.endswith(b"\n"):
            return


@contextlib.contextmanager
def _open(source: Source) -> Iterator[Any]:
    """The unbuffered bytes of an input. Standard input is left open."""
    if source.path is None:
        yield getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
        return
    with source.path.open("rb", buffering=0) as file:
        yield file


class _Metered(io.RawIOBase):
    """Counts the bytes read, and heeds the interrupt also while a pipe has nothing to read."""

    def __init__(self, file: Any, interrupt: Interrupt, on_bytes: OnBytes) -> None:
        super().__init__()
        self._file = file
        self._interrupt = interrupt
        self._on_bytes = on_bytes
        self._poll: select.poll | None = select.poll()
        try:
            self._poll.register(file.fileno(), select.POLLIN)
        except (OSError, AttributeError):
            self._poll = None  # not a file of the operating system, so it never waits

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._interrupt.check()
        while self._poll is not None and not self._poll.poll(_POLL_MS):
            self._interrupt.check()
        count = self._file.readinto(buffer) or 0
        self._on_bytes(count)
        return int(count)
