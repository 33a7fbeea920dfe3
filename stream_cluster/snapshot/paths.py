"""Where an archive is kept: `<account>/<task_id>.zip` below a directory or a prefix."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from urllib.parse import quote

# File names may have 255 bytes; room is left for `.zip` and the temporary name around it.
_MAX_NAME_BYTES = 200


def safe_name(identifier: str) -> str:
    """An id as one component of a path: unique, never `.` or `..`, never too long.

    Ordinary ids stay as they are. Others are percent-encoded; where that gets too long, they are cut and
    end in a hash.
    """
    name = quote(identifier, safe=" !#$&'()+,;=@[]^_`{}~-.")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > _MAX_NAME_BYTES:
        digest = hashlib.blake2b(identifier.encode(), digest_size=16).hexdigest()
        name = f"{name[: _MAX_NAME_BYTES - len(digest) - 1]}-{digest}"
    return name


def archive_name(account_id: str, task_id: str) -> PurePosixPath:
    """Name of a task's archive in any store. Two accounts may use the same task id, so each has a folder."""
    return PurePosixPath(safe_name(account_id), f"{safe_name(task_id)}.zip")


def archive_path(directory: Path, account_id: str, task_id: str) -> Path:
    """Path of a task's archive below a directory."""
    return directory / archive_name(account_id, task_id)
