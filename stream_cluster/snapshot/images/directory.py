"""Images in a directory.

Every component is opened below the one before it and no symbolic link is followed, so there is no moment
between a check and its use in which a path could be turned elsewhere.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Sequence

from stream_cluster.snapshot.images.faults import ImageFault, NoImage

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Opening a FIFO that nobody writes to would block without O_NONBLOCK; reading a regular file takes no notice.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# A component that is a file, and a name that the file system cannot hold, are as good as absent.
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP})


class DirectoryReader:
    """Reads files below a directory, in the threads of the event loop."""

    def __init__(self, path: str, max_bytes: int) -> None:
        """The directory is opened anew for each image, so it may come, go and be replaced."""
        self._path = path
        self._max_bytes = max_bytes

    async def read(self, parts: Sequence[str]) -> bytes:
        """The content of a file. Raises NoImage."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, read_below, self._path, parts, self._max_bytes)

    async def close(self) -> None:
        """Nothing is kept open."""


def read_below(root: str, parts: Sequence[str], max_bytes: int) -> bytes:
    """The content of a regular file that lies below `root`, whatever `parts` are.

    Raises NoImage: `refused` for a symbolic link, anything but a regular file, or a component that is no
    plain name; `missing`, `too_large`; `unreachable` when the root or the file cannot be read.
    """
    if any("/" in part or "\0" in part or part in {"", ".", ".."} for part in parts):
        raise NoImage(ImageFault.REFUSED)
    try:
        folder = os.open(root, _FOLDER)
    except OSError:
        raise NoImage(ImageFault.UNREACHABLE) from None
    try:
        for part in parts[:-1]:
            # Looked at before it is opened: to open a device can have effects of its own.
            _check_kind(folder, part, stat.S_IFDIR)
            inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        _check_kind(folder, parts[-1], stat.S_IFREG)
        return _read(folder, parts[-1], max_bytes)
    except OSError as error:
        missing = error.errno in _NOT_THERE
        raise NoImage(ImageFault.MISSING if missing else ImageFault.UNREACHABLE) from None
    except ValueError:  # text that is no file name at all, such as a lone surrogate
        raise NoImage(ImageFault.REFUSED) from None
    finally:
        os.close(folder)


def _check_kind(folder: int, name: str, kind: int) -> None:
    """Raises NoImage (`refused`) unless the entry itself, not what it links to, is of that kind."""
    if stat.S_IFMT(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode) != kind:
        raise NoImage(ImageFault.REFUSED)


def _read(folder: int, name: str, max_bytes: int) -> bytes:
    file = os.open(name, _FILE, dir_fd=folder)
    try:
        found = os.fstat(file)
        # Another file may have taken its place since it was looked at.
        if not stat.S_ISREG(found.st_mode):
            raise NoImage(ImageFault.REFUSED)
        if found.st_size > max_bytes:
            raise NoImage(ImageFault.TOO_LARGE)
        parts = []
        left = max_bytes + 1
        while left and (part := os.read(file, min(left, found.st_size + 1))):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(file)
    if not left:  # it grew while it was read
        raise NoImage(ImageFault.TOO_LARGE)
    return b"".join(parts)
