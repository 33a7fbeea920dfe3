"""Archives in a bucket of S3, or of a store that speaks its protocol, through obstore."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import obstore
from obstore.exceptions import BaseError, NotFoundError

from stream_cluster import files
from stream_cluster.config.settings import S3Settings
from stream_cluster.errors import ConfigError, ResultsUnavailable
from stream_cluster.model import Interrupt, Progress
from stream_cluster.service.bucket import connect, object_url, probe, short
from stream_cluster.snapshot.paths import safe_name

# S3 takes at most 10,000 parts, each but the last at least 5 MiB. Memory is a few parts.
_PART_BYTES = 8 << 20
_MAX_PARTS = 10_000
_PARTS_AT_ONCE = 2
_BLOCK_BYTES = 1 << 20
_READ_AHEAD_BYTES = 1 << 18


class S3Store:
    """See `stream_cluster.service.result_store.ResultStore`."""

    uploads = True

    def __init__(self, settings: S3Settings, spool: Path, presign_s: int | None) -> None:
        """`spool` is a local directory of this process, for archives on their way."""
        self._settings = settings
        self._spool = spool
        self._presign_s = presign_s
        self._bucket = connect(settings, settings.retry_s)

    def check(self) -> None:
        """See `ResultStore.check`. Writes a small object and removes it."""
        try:
            files.make_folder(self._spool, 0o700)
            for leftover in self._spool.iterdir():
                leftover.unlink()
        except OSError as error:
            raise ConfigError(
                f"state.directory: {self._spool} cannot be written: {error.strerror or error}"
            ) from error
        settings = self._settings
        try:
            probe(settings)
        except (BaseError, OSError) as error:
            where = f" at {settings.endpoint}" if settings.endpoint else ""
            raise ConfigError(
                f"results.s3: bucket {settings.bucket}{where} cannot be written: {short(error)}"
            ) from error

    def begin(self, name: PurePosixPath) -> Path:
        """See `ResultStore.begin`."""
        digest = hashlib.blake2b(str(name).encode(), digest_size=16).hexdigest()
        return self._spool / f"{digest}.zip"

    def put(self, name: PurePosixPath, file: Path, interrupt: Interrupt, progress: Progress) -> None:
        """See `ResultStore.put`. A large archive is sent in parts, which an interrupt drops."""
        with self._explained(name):
            try:
                size_bytes = file.stat().st_size
                interrupt.check()
                if size_bytes <= _PART_BYTES:
                    obstore.put(self._bucket, str(name), file.read_bytes(), use_multipart=False)
                else:
                    obstore.put(
                        self._bucket,
                        str(name),
                        # An exception out of the iterator ends the upload and drops its parts.
                        _blocks(file, size_bytes, interrupt, progress),
                        chunk_size=max(_PART_BYTES, math.ceil(size_bytes / _MAX_PARTS)),
                        max_concurrency=_PARTS_AT_ONCE,
                    )
            finally:
                file.unlink(missing_ok=True)
        progress("upload", 1.0)

    def url(self, name: PurePosixPath) -> str:
        """`s3://bucket/key`."""
        return object_url(self._settings, name)

    def access_url(self, name: PurePosixPath) -> str:
        """A presigned address when `results.presign_s` is set."""
        if self._presign_s is None:
            return self.url(name)
        with self._explained(name):
            signed: str = obstore.sign(self._bucket, "GET", str(name), timedelta(seconds=self._presign_s))
        return signed

    def delete(self, name: PurePosixPath) -> None:
        """See `ResultStore.delete`."""
        with self._explained(name), contextlib.suppress(NotFoundError):
            obstore.delete(self._bucket, str(name))

    def names(self, account_id: str | None = None) -> Iterator[PurePosixPath]:
        """See `ResultStore.names`."""
        folder = None if account_id is None else safe_name(account_id)
        with self._explained(PurePosixPath(folder or "")):
            for page in obstore.list(self._bucket, folder):
                for found in page:
                    name = PurePosixPath(found["path"])
                    if len(name.parts) == 2 and name.suffix == ".zip":
                        yield name

    def open(self, name: PurePosixPath) -> BinaryIO:
        """See `ResultStore.open`. Only what is read is fetched."""
        with self._explained(name):
            size_bytes = obstore.head(self._bucket, str(name))["size"]
        return io.BufferedReader(_ObjectFile(self, name, size_bytes), _READ_AHEAD_BYTES)

    def read(self, name: PurePosixPath, begin: int, length: int) -> bytes:
        """Some bytes of an archive."""
        with self._explained(name):
            return bytes(obstore.get_range(self._bucket, str(name), start=begin, length=length))

    @contextlib.contextmanager
    def _explained(self, name: PurePosixPath) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise ResultsUnavailable(f"archive {self.url(name)}: {short(error)}") from error


class _ObjectFile(io.RawIOBase):
    """An object of a bucket as a file that can be read and sought."""

    def __init__(self, store: S3Store, name: PurePosixPath, size_bytes: int) -> None:
        self._store = store
        self._name = name
        self._size_bytes = size_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size_bytes - self._position)
        if length <= 0:
            return 0
        data = self._store.read(self._name, self._position, length)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _blocks(file: Path, size_bytes: int, interrupt: Interrupt, progress: Progress) -> Iterator[bytes]:
    sent = 0
    with file.open("rb") as source:
        while block := source.read(_BLOCK_BYTES):
            interrupt.check()
            yield block
            sent += len(block)
            progress("upload", sent / size_bytes)
        # The last moment at which the parts can be dropped.
        interrupt.check()
