"""Opening partition databases: pragmas, format checks, and SQLite's errors in our words."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from stream_cluster.errors import ConfigError, StateCorrupt, StateError, StateFormatError, StateLocked
from stream_cluster.state.schema import APPLICATION_ID, DDL, FORMAT_VERSION, UPGRADE_1_TO_2, object_columns

Synchronous = Literal["full", "normal", "off"]

BUSY_TIMEOUT_MS = 30_000
"""How long a statement waits for a lock of another connection."""

# Commits append to the WAL; copying it into the database costs a second write and an fsync, so it is done
# per 64 MiB and not per 4 MiB as by default.
_CHECKPOINT_PAGES = 16_384
# A report looks objects up in the order of clusters, not in that of the file.
_READER_CACHE_KIB = 32 * 1024
_WHAT_TO_DO = "restore this partition from a backup, or move the file away to rebuild it from Kafka"


OWNER_KEY = "owner"
"""Key in the table `meta`: made up by whoever opened the database for writing last."""


class OwnedConnection(sqlite3.Connection):
    """Of the one writer. Its transactions fail when another writer has opened the database since.

    The lock on the directory keeps processes apart on one machine. On a shared volume, a process that was cut
    off may have lost that lock without knowing.
    """

    owner: str | None = None
    """What this writer put under `OWNER_KEY`; None before it owns the database."""

    def take(self) -> None:
        """Become the owner."""
        self.owner = secrets.token_hex(8)
        self.execute(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            (OWNER_KEY, self.owner),
        )

    def check_owner(self) -> None:
        """Raises StateLocked when another writer has opened the database."""
        if self.owner is not None:
            found = self.execute("SELECT value FROM meta WHERE key = ?", (OWNER_KEY,)).fetchone()
            if found != (self.owner,):
                _, _, path = self.execute("PRAGMA database_list").fetchone()
                raise StateLocked(f"{path}: another process has opened this database, and goes on with it")


def database_path(directory: Path, partition: int) -> Path:
    """Path of a partition's database inside the state directory."""
    return directory / f"partition-{partition}.sqlite"


@contextlib.contextmanager
def explain_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into `StateCorrupt` or `StateError` that name the file, and what to do."""
    try:
        yield
    except StateCorrupt as error:
        # From a checksum; what found it knows the place in the database, but not the file. Blocks may be
        # nested.
        if _WHAT_TO_DO in str(error):
            raise
        where = "" if str(path) in str(error) else f"{path}: "
        raise StateCorrupt(f"{where}{error}; {_WHAT_TO_DO}") from error
    except sqlite3.DatabaseError as error:
        # Codes 11 and 26 are SQLITE_CORRUPT and SQLITE_NOTADB; the low byte is the primary code.
        primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise StateCorrupt(f"{path}: damaged database ({error}); {_WHAT_TO_DO}") from error
        raise StateError(f"{path}: {error}") from error


def open_writer(
    path: Path, meta: Mapping[str, str], *, synchronous: Synchronous = "full", page_cache_mb: int = 64
) -> OwnedConnection:
    """Open a database for its one writer, creating it when it does not exist. No other writer can go on.

    A file of version 1 is upgraded, and one of the present version gets the columns that it lacks.
    `meta` are the facts the file must agree with; they are stored in a new file.

    Raises:
        StateFormatError: the file has another format version or belongs to another program.
        StateCorrupt: the file is damaged.
        ConfigError: the file was written for another topic, partition, partition count or partitioner.
    """
    _make_private(path)
    with explain_errors(path):
        connection = sqlite3.connect(
            path,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT_MS / 1000,
            factory=OwnedConnection,
        )
        try:
            _configure(connection, synchronous, page_cache_mb)
            if is_empty(connection):
                _create(connection, meta)
            elif _version(connection) == 1:
                _upgrade(connection, path, meta)
            _check_format(connection, path)
            _complete(connection)
            _check_meta(connection, path, meta)
            _add_columns(connection)
            connection.take()
        except BaseException:
            connection.close()
            raise
    return connection


def _make_private(path: Path) -> None:
    """Let only the owner read the database and its logs, before anything is in them.

    SQLite gives the write-ahead log and its index the permissions of the database; those that an earlier
    release left are changed.
    """
    with contextlib.suppress(OSError):  # SQLite says what is wrong with the place
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            if file.exists():
                file.chmod(0o600)


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a database read-only, beside its writer.

    Raises:
        StateError: the file does not exist, or its creation is not finished.
        StateFormatError, StateCorrupt: as `open_writer`.
    """
    if not path.is_file():
        raise StateError(f"{path}: no such state database")
    # A reader of a WAL database writes its index beside it. Where it may not, and no writer has left a WAL,
    # the file is complete by itself.
    alone = not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()
    with explain_errors(path):
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if alone else ''}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT_MS / 1000,
        )
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
            if is_empty(connection):
                # Its writer began just now or died before the creation was committed; the next one makes it.
                raise StateError(f"{path}: no state yet, its creation is not finished")
            _check_format(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def read_meta(connection: sqlite3.Connection) -> dict[str, str]:
    """The `meta` table."""
    return dict(connection.execute("SELECT key, value FROM meta").fetchall())


def load_offsets(connection: sqlite3.Connection) -> dict[tuple[str, int], int]:
    """next_offset by (topic, partition)."""
    rows = connection.execute("SELECT topic, partition, next_offset FROM offsets")
    return {(topic, partition): next_offset for topic, partition, next_offset in rows}


def vacuum(connection: sqlite3.Connection, deleted: int, now_us: int) -> None:
    """Rewrite the whole file, and note when and how many objects had been deleted until then.

    SQLite moves entries between pages as its trees grow, and leaves copies behind in the unused part of the
    pages, which `secure_delete` does not reach. A rewrite does.
    """
    if isinstance(connection, OwnedConnection):
        connection.check_owner()
    connection.execute("VACUUM")
    connection.executemany(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        [("vacuumed_deleted", str(deleted)), ("vacuumed_us", str(now_us))],
    )


def last_vacuum(connection: sqlite3.Connection) -> tuple[int, int]:
    """(objects deleted by then, microseconds since the epoch) of the last rewrite; zeros for none."""
    meta = read_meta(connection)
    return int(meta.get("vacuumed_deleted", 0)), int(meta.get("vacuumed_us", 0))


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """Commit what the block did, or roll all of it back when it raises.

    Raises StateLocked when the connection is that of a writer who is not the last one.
    """
    connection.execute(begin)
    try:
        if isinstance(connection, OwnedConnection):
            connection.check_owner()
        yield
    except BaseException:
        # A failed COMMIT (disk full) may have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    try:
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _configure(connection: sqlite3.Connection, synchronous: Synchronous, page_cache_mb: int) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous.upper()}")
    connection.execute(f"PRAGMA cache_size = -{page_cache_mb * 1024}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute("PRAGMA temp_store = MEMORY")
    # What is deleted is overwritten with zeros in the file, not only unlinked.
    connection.execute("PRAGMA secure_delete = ON")


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether it has no tables: its creation is not finished."""
    return int(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]) == 0


def _create(connection: sqlite3.Connection, meta: Mapping[str, str]) -> None:
    with transaction(connection):
        _run_script(connection, DDL)
        connection.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", sorted(meta.items()))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")


def _upgrade(connection: sqlite3.Connection, path: Path, meta: Mapping[str, str]) -> None:
    """Bring a file of version 1 that is ours to version 2; killed before the end, it is still version 1."""
    _check_application(connection, path)
    _check_meta(connection, path, meta)
    with transaction(connection):
        _run_script(connection, UPGRADE_1_TO_2)
        connection.execute("PRAGMA user_version = 2")


def _add_columns(connection: sqlite3.Connection) -> None:
    """Columns of objects that came after the file was made; empty in the objects that it has."""
    present = {row[1] for row in connection.execute("PRAGMA table_info(objects)")}
    missing = [column for column in object_columns() if column.split()[0] not in present]
    if missing:
        with transaction(connection):
            for column in missing:
                connection.execute(f"ALTER TABLE objects ADD COLUMN {column}")


def _complete(connection: sqlite3.Connection) -> None:
    """Add what an early file of version 2 lacks."""
    if not connection.execute("SELECT 1 FROM pragma_table_info('spaces') WHERE name = 'matching'").fetchone():
        connection.execute("ALTER TABLE spaces ADD COLUMN matching TEXT")


def _run_script(connection: sqlite3.Connection, script: str) -> None:
    # One statement at a time: executescript would commit the transaction first.
    for statement in script.split(";"):
        if statement.strip():
            connection.execute(statement)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _check_application(connection: sqlite3.Connection, path: Path) -> None:
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    if application_id != APPLICATION_ID:
        raise StateFormatError(
            f"{path}: not a stream-cluster state database "
            f"(application id {application_id:#x}, expected {APPLICATION_ID:#x})"
        )


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    _check_application(connection, path)
    version = _version(connection)
    if version == FORMAT_VERSION:
        return
    advice = "run the release that wrote it, or move the file away to rebuild it from Kafka"
    if version == 1:
        advice = "start the service with it once, which upgrades it"
    raise StateFormatError(
        f"{path}: state format {version}, but this release reads format {FORMAT_VERSION}; {advice}"
    )


def _check_meta(connection: sqlite3.Connection, path: Path, expected: Mapping[str, str]) -> None:
    found = read_meta(connection)
    for key, value in expected.items():
        if found.get(key) != value:
            raise ConfigError(
                f"{path}: written for {key} = {found.get(key)!r}, but {key} is now {value!r}; accounts would "
                "be split between partitions, so the state cannot be used with it"
            )
