"""One process per state directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from stream_cluster import files
from stream_cluster.errors import ConfigError, StateLocked


class DirectoryLock:
    """An advisory lock on a directory, held until `release` or the end of the process.

    The kernel drops it when the process dies however it dies, so a stale file never blocks a restart.
    """

    def __init__(self, directory: Path) -> None:
        """Create the directory when missing, and lock it.

        Raises:
            StateLocked: another process holds it; the message names its process id.
            ConfigError: the directory cannot be created or written.
        """
        self._path = directory / "lock"
        try:
            files.make_folder(directory)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"state.directory {directory}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise StateLocked(f"state directory {directory} is in use by process {holder}") from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the directory back; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
