"""Where archives are kept: a directory, or a bucket that speaks the protocol of S3.

A store knows names (`<account>/<task_id>.zip`, see `stream_cluster.snapshot.paths`) and bytes, not tasks. An
archive is written to a local file first; a directory then has it already, a bucket gets it in parts. Its
methods block, so the service calls them in threads.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from stream_cluster import files
from stream_cluster.config import Settings
from stream_cluster.errors import ConfigError, ResultsUnavailable
from stream_cluster.model import Interrupt, Progress
from stream_cluster.service.s3_store import S3Store
from stream_cluster.snapshot.paths import safe_name


class ResultStore(Protocol):
    """A place for archives. Every method may raise `ResultsUnavailable`."""

    uploads: bool
    """Whether `put` takes time."""

    def check(self) -> None:
        """Find out at the start that archives cannot be stored; remove what an earlier process left.

        Raises:
            ConfigError: the place, the credentials or the permissions are wrong.
        """

    def begin(self, name: PurePosixPath) -> Path:
        """The local file that the archive is to be written to; leftovers of an earlier try are removed."""

    def put(self, name: PurePosixPath, file: Path, interrupt: Interrupt, progress: Progress) -> None:
        """Store what was written to the file of `begin`; the file is gone afterwards, whatever happens.

        Raises:
            Cancelled, TaskError: by `interrupt`; nothing is left in the store.
        """

    def url(self, name: PurePosixPath) -> str:
        """Stable address of an archive."""

    def access_url(self, name: PurePosixPath) -> str:
        """Where to get it: the same, or an address that is valid for a while for whoever has it."""

    def delete(self, name: PurePosixPath) -> None:
        """Remove an archive; one that is not there is removed already."""

    def names(self, account_id: str | None = None) -> Iterator[PurePosixPath]:
        """The archives of an account, or all, in no order."""

    def open(self, name: PurePosixPath) -> BinaryIO:
        """An archive's bytes, seekable."""


class DirectoryStore:
    """Archives as files below one directory, which several workers may share."""

    uploads = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def check(self) -> None:
        """See `ResultStore.check`."""
        try:
            files.make_folder(self._directory)
            with tempfile.TemporaryFile(dir=self._directory):
                pass
        except OSError as error:
            raise ConfigError(
                f"results.directory {self._directory}: cannot be written: {error.strerror or error}"
            ) from error

    def begin(self, name: PurePosixPath) -> Path:
        """See `ResultStore.begin`."""
        path = self._directory / name
        try:
            if path.parent.is_dir():
                for leftover in path.parent.iterdir():
                    if leftover.name.startswith(f".{path.name}.") and leftover.suffix == ".tmp":
                        leftover.unlink(missing_ok=True)
        except OSError as error:
            raise ResultsUnavailable(f"archive {path}: {error.strerror or error}") from error
        return path

    def put(self, name: PurePosixPath, file: Path, interrupt: Interrupt, progress: Progress) -> None:
        """Nothing to do: the archive was put in its place, whole, when it was written."""

    def url(self, name: PurePosixPath) -> str:
        """`file:///…`."""
        return (self._directory / name).resolve().as_uri()

    access_url = url

    def delete(self, name: PurePosixPath) -> None:
        """See `ResultStore.delete`."""
        path = self._directory / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ResultsUnavailable(f"archive {path}: {error.strerror or error}") from error

    def names(self, account_id: str | None = None) -> Iterator[PurePosixPath]:
        """See `ResultStore.names`."""
        # Names that begin with a dot are archives that are being written.
        one = None if account_id is None else self._directory / safe_name(account_id)
        for folder in self._directory.glob("*/") if one is None else [one]:
            for path in folder.glob("*.zip"):
                if not path.name.startswith("."):
                    yield PurePosixPath(folder.name, path.name)

    def open(self, name: PurePosixPath) -> BinaryIO:
        """See `ResultStore.open`."""
        path = self._directory / name
        try:
            return path.open("rb")
        except OSError as error:
            raise ResultsUnavailable(f"archive {path}: {error.strerror or error}") from error


def make_store(settings: Settings) -> ResultStore:
    """The store that the settings name."""
    results = settings.results
    if results.s3.bucket is None:
        return DirectoryStore(Path(results.directory))
    # The state directory is local and belongs to this process alone.
    return S3Store(results.s3, Path(settings.state.directory) / "spool", results.presign_s)
