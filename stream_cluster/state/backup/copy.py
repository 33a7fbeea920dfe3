"""A consistent copy of a database beside its writer.

SQLite's backup begins anew whenever another connection has written meanwhile, unless it reads within a
transaction: that pins one state of the write-ahead log, and the writer goes on behind it. The copy is a file
of its own, so the transaction is over as soon as the pages are copied, however slowly they are stored
afterwards; a transaction that waited for a store would keep the log from being emptied.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from stream_cluster.errors import StateCorrupt, StateError
from stream_cluster.model import Interrupt, Progress
from stream_cluster.state.database import (
    OWNER_KEY,
    explain_errors,
    load_offsets,
    open_reader,
    read_meta,
    transaction,
)

_PAGES_PER_STEP = 2048
# Room that a backup leaves on the disk of the state, which needs it more.
_SPARE_BYTES = 256 << 20
EPOCH_KEY = "backup_epoch"
"""Key in the table `meta`: the epoch that the owner of the database has taken for its backups."""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What a database says of itself at one point."""

    meta: dict[str, str]
    offsets: dict[tuple[str, int], int]
    """next_offset by (topic, partition)."""
    objects: int
    state_format: int
    fingerprint: str
    """Changes whenever something was applied, deleted, or done to a task."""

    @property
    def next_offset(self) -> int | None:
        """Of the partition's own topic; None when nothing was applied."""
        return self.offsets.get((self.meta["topic"], int(self.meta["partition"])))

    @property
    def epoch(self) -> int:
        """That its owner has taken; 0 when it never took one."""
        return int(self.meta.get(EPOCH_KEY, 0))


def read_facts(path: Path) -> DatabaseFacts:
    """Facts of a database, beside its writer.

    Raises:
        StateError, StateFormatError, StateCorrupt: see `open_reader`.
    """
    connection = open_reader(path)
    try:
        with explain_errors(path):
            return _facts(connection)
    finally:
        connection.close()


def store_epoch(connection: sqlite3.Connection, epoch: int) -> None:
    """Note the epoch that was taken. Runs inside a transaction of the writer."""
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        (EPOCH_KEY, str(epoch)),
    )


def note_epoch(path: Path, epoch: int) -> None:
    """The same for a database that nobody has open. Raises StateError or StateCorrupt."""
    with explain_errors(path):
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            with transaction(connection):
                store_epoch(connection, epoch)
        finally:
            connection.close()


def copy_database(path: Path, target: Path, interrupt: Interrupt, progress: Progress) -> DatabaseFacts:
    """Copy one state of a database into a new file and check its structure.

    Raises:
        StateError: no room for the copy, or the database cannot be read.
        StateCorrupt: the copy is damaged, hence the database is.
        Cancelled, TaskError: by `interrupt`; the caller removes the file.
    """
    _require_room(path, target)
    source = open_reader(path)
    try:
        with explain_errors(path):
            source.execute("BEGIN")
            facts = _facts(source)  # the first read: from here on the state is pinned
            copy = sqlite3.connect(target, isolation_level=None)
            try:
                # It is of no use after a crash, and seen by nobody else.
                copy.execute("PRAGMA synchronous = OFF")
                copy.execute("PRAGMA journal_mode = OFF")

                def step(_: int, remaining: int, total: int) -> None:
                    interrupt.check()
                    progress("copy", 1 - remaining / max(total, 1))

                source.backup(copy, pages=_PAGES_PER_STEP, progress=step, sleep=0)
            finally:
                copy.close()
    finally:
        source.close()
    check_structure(target, interrupt)
    return facts


def check_structure(path: Path, interrupt: Interrupt) -> None:
    """Let SQLite look at every page of a closed database that nobody else has open.

    Raises:
        StateCorrupt: the message has the first problem that was found.
    """
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    stopped: list[Exception] = []

    def stop() -> bool:
        try:
            interrupt.check()
        except Exception as error:  # SQLite would swallow it
            stopped.append(error)
        return bool(stopped)

    try:
        connection.set_progress_handler(stop, 10_000)
        with explain_errors(path):
            problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except StateError:
        if stopped:
            raise stopped[0] from None
        raise
    finally:
        connection.close()
    if problem != "ok":
        raise StateCorrupt(f"{path}: damaged database ({problem})")


def _require_room(path: Path, target: Path) -> None:
    wal = path.with_name(f"{path.name}-wal")
    if not path.is_file():
        raise StateError(f"{path}: no such state database")
    needed = path.stat().st_size + (wal.stat().st_size if wal.exists() else 0)
    free = shutil.disk_usage(target.parent).free
    if free < needed + _SPARE_BYTES:
        raise StateError(
            f"{target.parent}: {free} bytes free, expected {needed + _SPARE_BYTES} for a copy of {path.name}"
        )


def _facts(connection: sqlite3.Connection) -> DatabaseFacts:
    meta = read_meta(connection)
    offsets = load_offsets(connection)
    rows, deleted = connection.execute(
        "SELECT coalesce(sum(next_row), 0), coalesce(sum(deleted), 0) FROM spaces"
    ).fetchone()
    tasks = connection.execute(
        "SELECT status, asked, archive, callback, count(*), max(ended_us) FROM tasks "
        "GROUP BY status, asked, archive, callback ORDER BY status, asked, archive, callback"
    ).fetchall()
    told = {name: value for name, value in meta.items() if name not in {EPOCH_KEY, OWNER_KEY}}
    known = (sorted(told.items()), sorted(offsets.items()), rows, deleted, tasks)
    return DatabaseFacts(
        meta,
        offsets,
        rows - deleted,
        int(connection.execute("PRAGMA user_version").fetchone()[0]),
        hashlib.sha256(repr(known).encode()).hexdigest(),
    )
