"""A cache file with a sidecar that tells whether it is whole: written atomically, verified before use.

Format (version 1). Beside `<name>`, the file itself, lies `<name>.json`: two lines of ASCII,

    {"format": 1, "bytes": ..., "blake2b": "...", "fields": {...}}     about the file
    <blake2b-256 of the first line, in hexadecimal>

The file is put in place first and its sidecar after it, each by rename after fsync. A crash in between
leaves a sidecar that does not fit the file, which reads as damaged: a cache is built anew, never repaired.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from stream_cluster.errors import StreamClusterError
from stream_cluster.faults import fault_point

FORMAT_VERSION = 1

CacheProblem = Literal["missing", "damaged", "format", "parameters", "rows"]

Fields = dict[str, str | int]


class CacheRejected(StreamClusterError):
    """A cache cannot be used and is to be built anew; `reason` is a stable word for it."""

    def __init__(self, reason: CacheProblem, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: CacheProblem = reason
        self.detail = detail


def sidecar_path(path: Path) -> Path:
    """Where the sidecar of the cache file lies."""
    return path.with_name(path.name + ".json")


def save(path: Path, write: Callable[[str], None], expected_bytes: int, fields: Fields) -> None:
    """Write a cache file and its sidecar.

    Args:
        path: where the file is to be; its folder exists.
        write: writes the file at the path it is given.
        expected_bytes: its size; a writer that ignores errors shows by another one.
        fields: what the file was made from; `verify` gives it back.

    Raises:
        OSError: it cannot be written, or not completely.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        _make_private(temporary)
        fault_point("cache_write")
        write(str(temporary))
        found_bytes = temporary.stat().st_size
        if found_bytes != expected_bytes:
            raise OSError(f"{temporary}: found {found_bytes} bytes written, expected {expected_bytes}")
        about = {
            "format": FORMAT_VERSION,
            "bytes": found_bytes,
            "blake2b": _digest(temporary),
            "fields": fields,
        }
        _fsync(temporary)
        temporary.replace(path)
        line = json.dumps(about)
        _make_private(temporary)
        temporary.write_text(f"{line}\n{_digest_of(line)}\n", encoding="ascii")
        _fsync(temporary)
        temporary.replace(sidecar_path(path))
        _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _make_private(path: Path) -> None:
    """An empty file that only its owner may read, before anything is in it: vectors are personal data."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def verify(path: Path) -> Fields:
    """Check that the file at `path` is the one that was saved, and return its fields.

    Raises:
        CacheRejected: missing, damaged, or of another format version.
    """
    try:
        text = sidecar_path(path).read_bytes().decode("ascii")
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise CacheRejected("missing", str(error)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CacheRejected("damaged", str(error)) from error
    lines = text.split("\n")
    if len(lines) != 3 or lines[2] or lines[1] != _digest_of(lines[0]):
        raise CacheRejected("damaged", f"{sidecar_path(path)}: checksum of the sidecar does not fit")
    about = json.loads(lines[0])
    if about["format"] != FORMAT_VERSION:
        raise CacheRejected("format", f"{path}: found version {about['format']}, expected {FORMAT_VERSION}")
    if size != about["bytes"]:
        raise CacheRejected("damaged", f"{path}: found {size} bytes, expected {about['bytes']}")
    if _digest(path) != about["blake2b"]:
        raise CacheRejected("damaged", f"{path}: checksum does not fit")
    fields: Fields = about["fields"]
    return fields


def delete(path: Path) -> None:
    """Delete a cache file and its sidecar, if they are there. Raises OSError."""
    path.unlink(missing_ok=True)
    sidecar_path(path).unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()


def _digest_of(line: str) -> str:
    return hashlib.blake2b(line.encode("ascii"), digest_size=32).hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
