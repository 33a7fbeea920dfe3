"""Where backups are kept: a directory, or a bucket. Names and bytes, no meaning.

What is created once is never written again: a bucket is asked to refuse it (`If-None-Match`), a directory
takes a hard link to a finished file. So of two workers that want the same name, one gets it and the other one
knows. Methods block and may raise `BackupsUnavailable`; the service calls them in threads.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Protocol

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError

from stream_cluster import files
from stream_cluster.config import Settings
from stream_cluster.config.settings import BackupS3Settings
from stream_cluster.errors import BackupsUnavailable, ConfigError
from stream_cluster.service.bucket import connect, object_url, probe, short
from stream_cluster.snapshot.archive import sync_directory

# S3 takes at most 10,000 parts, each but the last at least 5 MiB. Memory is a few parts.
_PART_BYTES = 8 << 20
_MAX_PARTS = 10_000
_PARTS_AT_ONCE = 2
_READS_AT_ONCE = 4


class BackupStore(Protocol):
    """A place for backups."""

    def check(self) -> None:
        """Find out that nothing can be stored.

        Raises:
            ConfigError: the place, the credentials or the permissions are wrong, or it does not answer.
        """

    def names(self, folder: PurePosixPath) -> list[tuple[str, float]]:
        """(name, time of its last change in seconds since the epoch) of all that is right in a folder."""

    def folders(self) -> list[PurePosixPath]:
        """`<topic>/<partition>` of every partition that has something."""

    def create(self, name: PurePosixPath, data: bytes) -> bool:
        """Store a small object under a new name; False when the name is taken."""

    def put(self, name: PurePosixPath, blocks: Iterable[bytes], most_bytes: int) -> None:
        """Store a large object as it is made. What the iterator raises drops what was stored.

        `most_bytes`: how large it may become.
        """

    def read(self, name: PurePosixPath) -> bytes:
        """A small object. Raises FileNotFoundError."""

    def blocks(self, name: PurePosixPath, sizes: Sequence[int]) -> Generator[bytes, None, None]:
        """A large object in pieces; one that is cut short ends early. Raises FileNotFoundError."""

    def delete(self, name: PurePosixPath) -> None:
        """Remove an object; one that is not there is removed already."""

    def url(self, name: PurePosixPath) -> str:
        """Where an object is, for people."""


class DirectoryBackups:
    """Backups as files below a directory, which several workers may share."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def check(self) -> None:
        """See `BackupStore.check`."""
        try:
            files.make_folder(self._directory)
            with tempfile.TemporaryFile(dir=self._directory):
                pass
        except OSError as error:
            raise ConfigError(
                f"backup.directory {self._directory}: cannot be written: {error.strerror or error}"
            ) from error

    def names(self, folder: PurePosixPath) -> list[tuple[str, float]]:
        """See `BackupStore.names`."""
        path = self._directory / folder
        found = []
        with self._explained(folder):
            if path.is_dir():
                with os.scandir(path) as entries:
                    for entry in entries:
                        # One that another worker deletes meanwhile is not there.
                        with contextlib.suppress(FileNotFoundError):
                            if entry.is_file():
                                found.append((entry.name, entry.stat().st_mtime))
        return found

    def folders(self) -> list[PurePosixPath]:
        """See `BackupStore.folders`."""
        with self._explained(PurePosixPath()):
            found = [path for path in self._directory.glob("*/*") if path.is_dir() and path.name.isdigit()]
        return [PurePosixPath(path.parent.name, path.name) for path in sorted(found)]

    def create(self, name: PurePosixPath, data: bytes) -> bool:
        """See `BackupStore.create`."""
        with self._explained(name), self._written(name, [data]) as temporary:
            try:
                # Unlike a rename, a link fails when the name is taken.
                os.link(temporary, self._directory / name)
            except FileExistsError:
                return False
        return True

    def put(self, name: PurePosixPath, blocks: Iterable[bytes], most_bytes: int) -> None:  # noqa: ARG002
        """See `BackupStore.put`."""
        with self._explained(name), self._written(name, blocks) as temporary:
            temporary.replace(self._directory / name)

    def read(self, name: PurePosixPath) -> bytes:
        """See `BackupStore.read`."""
        with self._explained(name):
            return (self._directory / name).read_bytes()

    def blocks(self, name: PurePosixPath, sizes: Sequence[int]) -> Generator[bytes, None, None]:
        """See `BackupStore.blocks`."""
        with self._explained(name), (self._directory / name).open("rb") as file:
            for size in sizes:
                yield file.read(size)

    def delete(self, name: PurePosixPath) -> None:
        """See `BackupStore.delete`."""
        with self._explained(name):
            (self._directory / name).unlink(missing_ok=True)

    def url(self, name: PurePosixPath) -> str:
        """Its path."""
        return str(self._directory / name)

    @contextlib.contextmanager
    def _written(self, name: PurePosixPath, blocks: Iterable[bytes]) -> Iterator[Path]:
        """A finished file of another name beside the object; gone at the end unless it was renamed."""
        path = self._directory / name
        files.make_folder(path.parent)
        fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                for block in blocks:
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o640)
            yield Path(temporary)
            sync_directory(path.parent)
        finally:
            Path(temporary).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explained(self, name: PurePosixPath) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise BackupsUnavailable(f"backup {self.url(name)}: {error.strerror or error}") from error


class BucketBackups:
    """Backups in a bucket."""

    def __init__(self, settings: BackupS3Settings, retry_s: float | None = None) -> None:
        """`retry_s` in place of that of the settings."""
        self._settings = settings
        self._bucket = connect(settings, settings.retry_s if retry_s is None else retry_s)

    def check(self) -> None:
        """See `BackupStore.check`."""
        try:
            probe(self._settings)
        except (BaseError, OSError) as error:
            where = f" at {self._settings.endpoint}" if self._settings.endpoint else ""
            raise ConfigError(
                f"backup.s3: bucket {self._settings.bucket}{where} cannot be written: {short(error)}"
            ) from error

    def names(self, folder: PurePosixPath) -> list[tuple[str, float]]:
        """See `BackupStore.names`."""
        found = []
        with self._explained(folder):
            for page in obstore.list(self._bucket, str(folder)):
                for one in page:
                    name = PurePosixPath(one["path"])
                    if name.parent == folder:
                        found.append((name.name, one["last_modified"].timestamp()))
        return found

    def folders(self) -> list[PurePosixPath]:
        """See `BackupStore.folders`."""
        found = set()
        with self._explained(PurePosixPath()):
            for topic in obstore.list_with_delimiter(self._bucket)["common_prefixes"]:
                for folder in obstore.list_with_delimiter(self._bucket, topic)["common_prefixes"]:
                    if PurePosixPath(folder).name.isdigit():
                        found.add(PurePosixPath(folder))
        return sorted(found)

    def create(self, name: PurePosixPath, data: bytes) -> bool:
        """See `BackupStore.create`."""
        with self._explained(name):
            try:
                obstore.put(self._bucket, str(name), data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                # By a try of ours whose answer was lost, if what is there is what was to be written.
                return self.read(name) == data
        return True

    def put(self, name: PurePosixPath, blocks: Iterable[bytes], most_bytes: int) -> None:
        """See `BackupStore.put`. Sent in parts, which an exception drops."""
        with self._explained(name):
            obstore.put(
                self._bucket,
                str(name),
                iter(blocks),
                chunk_size=max(_PART_BYTES, math.ceil(most_bytes / _MAX_PARTS)),
                max_concurrency=_PARTS_AT_ONCE,
            )

    def read(self, name: PurePosixPath) -> bytes:
        """See `BackupStore.read`."""
        with self._explained(name):
            return bytes(obstore.get(self._bucket, str(name)).bytes())

    def blocks(self, name: PurePosixPath, sizes: Sequence[int]) -> Generator[bytes, None, None]:
        """See `BackupStore.blocks`. Some are fetched ahead, each as a request that may be repeated."""
        with self._explained(name):
            size_bytes = obstore.head(self._bucket, str(name))["size"]

        def fetch(begin: int, size: int) -> bytes:
            end = min(begin + size, size_bytes)
            if begin >= end:
                return b""
            with self._explained(name):
                return bytes(obstore.get_range(self._bucket, str(name), start=begin, end=end))

        pool = ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="fetch-backup")
        ahead: deque[Future[bytes]] = deque()
        position = 0
        try:
            for size in sizes:
                ahead.append(pool.submit(fetch, position, size))
                position += size
                if len(ahead) > _READS_AT_ONCE:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def delete(self, name: PurePosixPath) -> None:
        """See `BackupStore.delete`."""
        with self._explained(name), contextlib.suppress(NotFoundError, FileNotFoundError):
            obstore.delete(self._bucket, str(name))

    def url(self, name: PurePosixPath) -> str:
        """`s3://bucket/key`."""
        return object_url(self._settings, name)

    @contextlib.contextmanager
    def _explained(self, name: PurePosixPath) -> Iterator[None]:
        try:
            yield
        except (NotFoundError, FileNotFoundError) as error:
            raise FileNotFoundError(f"{self.url(name)}: no such object") from error
        except (BaseError, OSError) as error:
            raise BackupsUnavailable(f"backup {self.url(name)}: {short(error)}") from error


def make_backup_store(settings: Settings, retry_s: float | None = None) -> BackupStore:
    """The store that the settings name. `retry_s` in place of that of a bucket.

    Raises:
        ConfigError: they name none.
    """
    backup = settings.backup
    if backup.s3.bucket is not None:
        return BucketBackups(backup.s3, retry_s)
    if backup.directory is not None:
        return DirectoryBackups(Path(backup.directory))
    raise ConfigError("found no place for backups, expected backup.directory or backup.s3.bucket")
