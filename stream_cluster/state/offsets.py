"""Where a partition's state goes on reading: next_offsets by topic, and the gaps in its own log."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from stream_cluster.state.database import explain_errors, load_offsets, transaction
from stream_cluster.state.gaps import LastRecord, note_gap, note_log_begin, read_last_record, read_log_begin


class Offsets:
    """The next_offsets of a state, in its database and in memory."""

    def __init__(self, connection: sqlite3.Connection, path: Path, log: tuple[str, int]) -> None:
        """`log` is (topic, partition) of the events that the state is made of."""
        self._db = connection
        self._path = path
        self.log = log
        self._stored = load_offsets(connection)

    def of(self, topic: str, partition: int) -> int | None:
        """next_offset of a topic partition as last committed, None when it was never read."""
        return self._stored.get((topic, partition))

    def put(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Store next_offsets, which never fall, in the transaction under way. `remember` follows."""
        self._db.executemany(
            "INSERT INTO offsets (topic, partition, next_offset) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET next_offset = max(next_offset, excluded.next_offset)",
            [(topic, partition, offset) for (topic, partition), offset in offsets.items()],
        )

    def remember(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """What was put is committed."""
        for label, offset in offsets.items():
            self._stored[label] = max(offset, self._stored.get(label, 0))

    def store(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Make next_offsets durable on their own, outside a micro-batch."""
        with explain_errors(self._path), transaction(self._db):
            self.put(offsets)
        self.remember(offsets)

    def accept_gap(self, from_offset: int, to_offset: int, accepted_at: str) -> None:
        """Go on at `to_offset` of the log, lower in a new one, though `from_offset` was needed."""
        with explain_errors(self._path), transaction(self._db):
            note_gap(self._db, self.log, from_offset, to_offset, accepted_at)
            self._db.execute("DELETE FROM offsets WHERE topic = ? AND partition = ?", self.log)
            self.put({self.log: to_offset})
        self._stored[self.log] = to_offset

    def last_record(self) -> LastRecord | None:
        """The last record of the log that was applied; None when not known."""
        with explain_errors(self._path):
            return read_last_record(self._db)

    def log_begin(self) -> int | None:
        """The first offset that the log had when the state was new; None when it is still new, or older."""
        with explain_errors(self._path):
            return read_log_begin(self._db)

    def begin_at(self, offset: int) -> None:
        """Note the first offset that the log still has, for a state that is new."""
        with explain_errors(self._path), transaction(self._db):
            note_log_begin(self._db, offset)
