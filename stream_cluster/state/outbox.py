"""The outbox of cluster updates: written in the transaction of the batch, read and emptied when told on.

Updates are numbered by `seq`, without gaps, and a number is never used again. An epoch ends, and a new one
begins with a restatement of all clusters, when it cannot be known that the topic continues what is here:
updates had been switched off, another worker has written, the state was restored or the topic emptied.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stream_cluster.state.database import explain_errors, open_reader, read_meta, transaction


class OutboxRow(NamedTuple):
    """An update that waits to be produced."""

    seq: int
    account_id: str
    payload: bytes


class Told(NamedTuple):
    """How far some place has come, such as the end of the updates topic."""

    epoch: int
    seq: int


class Outbox:
    """The writer's side. Only `insert` and `trim` write, inside a transaction of the caller."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        self.last_seq: int = 0 if found is None else found[0]
        """Of the last update that was ever put in."""
        self.acknowledged_seq: int = self._first_seq() - 1
        """Updates up to this number have been acknowledged. Whoever tells them on raises it."""
        self._trimmed_seq = self.acknowledged_seq
        self._deletion_seq = self.last_seq
        """Of the last update that may name deleted objects."""
        self.erased_in_wal = False
        """Whether updates that named deleted objects were trimmed; whoever empties the log resets it."""
        meta = read_meta(connection)
        self.epoch = int(meta.get("updates_epoch", 0))
        self._is_on = "updates_on" in meta
        self._begin_seq = int(meta.get("updates_begin", 0))
        """Number before the first of the epoch."""

    def __len__(self) -> int:
        """Updates that are not known to be acknowledged."""
        return self.last_seq - self.acknowledged_seq

    def switch_off(self) -> None:
        """Forget updates that nobody is going to produce; the next time begins a new epoch."""
        if self._is_on:
            with transaction(self._db):
                self._empty()
                self._db.execute("DELETE FROM meta WHERE key = 'updates_on'")

    def switch_on(self, end: Told | None, now_us: int) -> None:
        """Go on after what is at the end of the topic (None: the topic is empty), or begin a new epoch.

        Raises the epoch above all earlier ones; it is the time in microseconds, if nothing is ahead of that.
        """
        if self._is_on and self._continues(end):
            return
        self.epoch = max(now_us, self.epoch + 1, 0 if end is None else end.epoch + 1)
        self._begin_seq = self.last_seq
        meta = {"updates_on": 1, "updates_epoch": self.epoch, "updates_begin": self._begin_seq}
        with transaction(self._db):
            self._empty()
            self._db.executemany(
                "INSERT INTO meta (key, value) VALUES (?, ?) "
                "ON CONFLICT DO UPDATE SET value = excluded.value",
                [(key, str(value)) for key, value in meta.items()],
            )
        self.acknowledged_seq = self._trimmed_seq = self.last_seq

    def insert(self, rows: Sequence[OutboxRow], *, name_deleted: bool = False) -> None:
        """Store updates that are numbered on from `last_seq`. `inserted` follows after the commit."""
        self._db.executemany("INSERT INTO outbox (seq, account_id, payload) VALUES (?, ?, ?)", rows)
        if name_deleted:
            self._deletion_seq = rows[-1].seq

    def inserted(self, rows: Sequence[OutboxRow]) -> None:
        """What was inserted has been committed."""
        if rows:
            self.last_seq = rows[-1].seq

    @property
    def holds_acknowledged(self) -> bool:
        """Whether `trim` has something to delete."""
        return self._trimmed_seq < self.acknowledged_seq

    def trim(self) -> None:
        """Delete what is acknowledged. If the transaction fails, it is deleted another time."""
        seq = self.acknowledged_seq
        if self._trimmed_seq < seq:
            self._db.execute("DELETE FROM outbox WHERE seq <= ?", (seq,))
            self.erased_in_wal |= self._trimmed_seq < self._deletion_seq
            self._trimmed_seq = seq

    def _continues(self, end: Told | None) -> bool:
        if end is None or end.epoch < self.epoch:
            # Nothing of this epoch is there; then all of it has to be here.
            return self._first_seq() == self._begin_seq + 1
        return end.epoch == self.epoch and end.seq <= self.last_seq

    def _first_seq(self) -> int:
        """The lowest number that is stored, or the next one."""
        (first,) = self._db.execute("SELECT min(seq) FROM outbox").fetchone()
        return self.last_seq + 1 if first is None else int(first)

    def _empty(self) -> None:
        self._db.execute("DELETE FROM outbox")
        self._db.execute("UPDATE spaces SET updates_cosine = NULL")


class OutboxReader:
    """Reads committed updates beside the writer, from any one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None

    def read(self, after_seq: int, max_rows: int) -> list[OutboxRow]:
        """The next updates in order. Raises StateError or StateCorrupt."""
        with explain_errors(self._path):
            if self._db is None:
                self._db = open_reader(self._path)
            rows = self._db.execute(
                "SELECT seq, account_id, payload FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?",
                (after_seq, max_rows),
            ).fetchall()
        return [OutboxRow(*row) for row in rows]

    def close(self) -> None:
        """Close the connection."""
        if self._db is not None:
            self._db.close()
            self._db = None
