"""Records of the log that a partition's state never had, kept in its `meta` table and told in manifests."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from typing import Any, NamedTuple

_SET = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"


def note_gap(
    connection: sqlite3.Connection,
    log: tuple[str, int],
    from_offset: int,
    to_offset: int,
    accepted_at: str,
) -> None:
    """Add a gap in a log (topic, partition) that a person accepted: from what was needed to what there is."""
    found = connection.execute("SELECT value FROM meta WHERE key = 'gaps'").fetchone()
    gaps = json.loads(found[0]) if found else []
    gaps.append(
        {
            "topic": log[0],
            "partition": log[1],
            "from_offset": from_offset,
            "to_offset": to_offset,
            "accepted_at": accepted_at,
        }
    )
    connection.execute(_SET, ("gaps", json.dumps(gaps)))
    # What comes next has no record of the old log before it.
    connection.execute("DELETE FROM meta WHERE key = 'last_record'")


class LastRecord(NamedTuple):
    """The last record that a state has applied, to know its log by."""

    offset: int
    digest: str


def digest_of(key: bytes | None, value: bytes | None, timestamp_ms: int) -> str:
    """16 bytes of BLAKE2b over what a record is, in hexadecimal digits."""
    digest = hashlib.blake2b(str(timestamp_ms).encode(), digest_size=16)
    for part in (key, value):
        digest.update(b"-" if part is None else b"%d:%b" % (len(part), part))
    return digest.hexdigest()


def note_last_record(connection: sqlite3.Connection, last: LastRecord) -> None:
    """Note the last record of a batch, in the transaction of the batch."""
    connection.execute(_SET, ("last_record", f"{last.offset} {last.digest}"))


def read_last_record(connection: sqlite3.Connection) -> LastRecord | None:
    """What `note_last_record` noted; None when nothing was."""
    found = connection.execute("SELECT value FROM meta WHERE key = 'last_record'").fetchone()
    if found is None:
        return None
    offset, digest = found[0].split()
    return LastRecord(int(offset), digest)


def note_log_begin(connection: sqlite3.Connection, offset: int) -> None:
    """Note the first offset that the log still had when the state was new."""
    connection.execute(_SET, ("log_begins_at", str(offset)))


def read_log_begin(connection: sqlite3.Connection) -> int | None:
    """What `note_log_begin` noted; None when nothing was."""
    found = connection.execute("SELECT value FROM meta WHERE key = 'log_begins_at'").fetchone()
    return None if found is None else int(found[0])


def gaps_of(meta: Mapping[str, str]) -> dict[str, Any]:
    """`gaps` and `log_begins_at` (null: not known) for a manifest."""
    begin = meta.get("log_begins_at")
    return {
        "gaps": json.loads(meta.get("gaps", "[]")),
        "log_begins_at": None if begin is None else int(begin),
    }
