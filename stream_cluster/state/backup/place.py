"""A restored database takes its place; killed at any step, the next try still ends well."""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path

from stream_cluster.state.database import database_path, explain_errors, is_empty, load_offsets

SCRATCH = "backup"
"""Folder of the state directory for copies on their way to a store."""
SCRATCH_PREFIX = "copy-"
"""Names of the service's own copies; a backup by hand, beside it, has others."""
RESTORING_SUFFIX = ".restoring"
REPLACED_SUFFIX = ".replaced"


def restoring_path(directory: Path, partition: int) -> Path:
    """Where a database is put together before it takes its place: another place each time."""
    path = database_path(directory, partition)
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{RESTORING_SUFFIX}")


def local_offset(directory: Path, partition: int, topic: str) -> int | None:
    """next_offset of a database; None when there is none, or one that has applied nothing yet.

    Of any format version: the service may have to upgrade it.

    Raises:
        StateError, StateCorrupt: it cannot be read.
    """
    path = database_path(directory, partition)
    if not path.exists():
        return None
    with explain_errors(path):
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            if is_empty(connection):
                return None  # its writer died before the creation was committed
            return load_offsets(connection).get((topic, partition))
        finally:
            connection.close()


def clean_up(directory: Path) -> None:
    """Remove what a former process left of copies and restores. Nobody else may use the directory."""
    for path in (directory / SCRATCH).glob(f"{SCRATCH_PREFIX}*"):
        path.unlink(missing_ok=True)
    for path in directory.glob("partition-*.sqlite.*"):
        if path.name.endswith(RESTORING_SUFFIX) or (
            path.name.endswith(REPLACED_SUFFIX)
            and path.with_name(path.name.removesuffix(REPLACED_SUFFIX)).exists()
        ):
            path.unlink(missing_ok=True)


def place_database(restored: Path, directory: Path, partition: int) -> None:
    """Let a finished file be the database of a partition that nobody has open.

    The former one is moved out of its place first, and only then is its log deleted: without its log, a
    database may be no state at all, and with the log of another, a database is damaged.
    """
    path = database_path(directory, partition)
    replaced = path.with_name(path.name + REPLACED_SUFFIX)
    if path.exists():
        path.rename(replaced)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    # Graphs of other rows, which would be refused.
    for cache in directory.glob(f"partition-{partition}-space-*.hnsw*"):
        cache.unlink(missing_ok=True)
    restored.chmod(0o600)
    restored.rename(path)
    replaced.unlink(missing_ok=True)
