"""The file format of a partition's database, version 2.

One SQLite file in WAL mode per input partition, `partition-<number>.sqlite`. `PRAGMA application_id` is
0x73634c31 ("scL1") and `PRAGMA user_version` is the format version. All integers in blobs are little-endian.

| table      | one row is |
|---|---|
| `meta`     | a fact about the file: `topic`, `partition`, `partitions`, `partitioner`; for cluster updates
                `updates_on`, `updates_epoch`, `updates_begin` |
| `offsets`  | `next_offset` of one topic partition: first offset to read after a restart |
| `spaces`   | a space with its fixed dimension; `next_row` is one past the last row ever given out, and links
                were kept above `floor` (a cosine) for all of its objects; `deleted` of its rows hold no
                object any more, and a row is never given out again; the cluster updates that were told
                of it are those at `updates_cosine`, null for none; `matching` is JSON about the engine
                that found its links and the recall it measured, null as long as all were exact |
| `objects`  | one object of one space with the columns that filters and reports use; `key` is
                `space_id << 32 | row` |
| `codes`    | int8 codes of consecutive rows, shape (rows, dim), row-major; `key` is
                `space_id << 32 | first_row`; the code of a deleted object is zeros, and a chunk of nothing
                else has no bytes |
| `links`    | spanning-forest links, see `stream_cluster.graph.links`; `merged` = 1 for the compacted
                forest, 0 for a reduced batch that waits to be merged |
| `counters` | records by account and result, for totals that reconcile across restarts |
| `tasks`    | a task read from the task topic and what became of it |
| `outbox`   | a cluster update that the brokers have not acknowledged, as far as is known here; numbers are
                never used again |

`crc32` columns hold `zlib.crc32` of the blob beside them as a signed integer of 32 bits (version 1: unsigned,
which is read too), so a damaged page in the bulk data is found when
it is read; damage to the tables' structure is reported by SQLite itself.
"""

from __future__ import annotations

FORMAT_VERSION = 2
APPLICATION_ID = 0x73634C31

ROW_BITS = 32
ROW_MASK = (1 << ROW_BITS) - 1

# Metadata columns of `objects`, in the order of the table: (name, SQL type). JSON columns hold JSON text.
METADATA_COLUMNS: tuple[tuple[str, str], ...] = (
    ("create_time_us", "INTEGER"),
    ("end_time_us", "INTEGER"),
    ("track_id", "TEXT"),
    ("handler_id", "TEXT"),
    ("source", "TEXT"),
    ("stream_id", "TEXT"),
    ("frame_id", "TEXT"),
    ("external_id", "TEXT"),
    ("user_data", "TEXT"),
    ("face_id", "TEXT"),
    ("event_id", "TEXT"),
    ("avatar", "TEXT"),
    ("gender", "INTEGER"),
    ("age", "INTEGER"),
    ("emotion", "INTEGER"),
    ("ethnic_group", "INTEGER"),
    ("mask", "INTEGER"),
    ("liveness", "INTEGER"),
    ("city", "TEXT"),
    ("area", "TEXT"),
    ("district", "TEXT"),
    ("street", "TEXT"),
    ("house_number", "TEXT"),
    ("longitude", "REAL"),
    ("latitude", "REAL"),
    ("tags", "JSON"),
    ("list_ids", "JSON"),
    ("meta", "JSON"),
    ("top_match", "JSON"),
    ("match_result", "JSON"),
    ("face_detections", "JSON"),
    ("attach_result", "JSON"),
    ("headwear", "JSON"),
    ("clothing", "JSON"),
    ("backpack", "JSON"),
)

# Columns that come from the descriptor, not from the object.
DESCRIPTOR_COLUMNS: tuple[tuple[str, str], ...] = (
    ("attribute_id", "TEXT"),
    ("image", "TEXT"),
    ("quality", "REAL"),
)


def object_columns() -> list[str]:
    """Definitions of the columns of `objects` after the first three, as SQL."""
    return [
        f"{name} {'TEXT' if kind == 'JSON' else kind}" for name, kind in METADATA_COLUMNS + DESCRIPTOR_COLUMNS
    ]


_OBJECT_COLUMNS = ",\n".join(f"    {column}" for column in object_columns())

DDL = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE offsets (
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) STRICT, WITHOUT ROWID;
CREATE TABLE spaces (
    space_id INTEGER PRIMARY KEY,
    account_id TEXT NOT NULL,
    object_type TEXT NOT NULL,
    descriptor_type TEXT NOT NULL,
    version INTEGER NOT NULL,
    dim INTEGER NOT NULL,
    next_row INTEGER NOT NULL DEFAULT 0,
    floor REAL NOT NULL,
    duplicates INTEGER NOT NULL DEFAULT 0,
    links_seen INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    updates_cosine REAL,
    matching TEXT,
    UNIQUE (account_id, object_type, descriptor_type, version)
) STRICT;
CREATE TABLE objects (
    key INTEGER PRIMARY KEY,
    space_id INTEGER NOT NULL,
    object_id TEXT NOT NULL,
{_OBJECT_COLUMNS}
) STRICT;
CREATE UNIQUE INDEX objects_by_id ON objects (space_id, object_id);
CREATE INDEX objects_by_time ON objects (space_id, create_time_us, object_id, source, track_id);
CREATE TABLE codes (
    key INTEGER PRIMARY KEY,
    rows INTEGER NOT NULL,
    crc32 INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE TABLE links (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    space_id INTEGER NOT NULL,
    merged INTEGER NOT NULL,
    links INTEGER NOT NULL,
    crc32 INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE INDEX links_by_space ON links (space_id, seq);
CREATE TABLE counters (
    account_id TEXT NOT NULL,
    result TEXT NOT NULL,
    reason TEXT NOT NULL,
    records INTEGER NOT NULL,
    PRIMARY KEY (account_id, result, reason)
) STRICT, WITHOUT ROWID;
CREATE TABLE tasks (
    account_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    status TEXT NOT NULL,
    request BLOB NOT NULL,
    read_time_us INTEGER NOT NULL,
    barrier INTEGER NOT NULL,
    asked TEXT,
    ended_us INTEGER,
    last_status BLOB,
    archive TEXT,
    expires_us INTEGER,
    callback TEXT,
    PRIMARY KEY (account_id, task_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;
"""

UPGRADE_1_TO_2 = """
DROP INDEX objects_by_track;
DROP INDEX objects_by_time;
CREATE INDEX objects_by_time ON objects (space_id, create_time_us, object_id, source, track_id);
ALTER TABLE spaces ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN asked TEXT;
ALTER TABLE tasks ADD COLUMN ended_us INTEGER;
ALTER TABLE tasks ADD COLUMN last_status BLOB;
ALTER TABLE tasks ADD COLUMN archive TEXT;
ALTER TABLE tasks ADD COLUMN expires_us INTEGER;
ALTER TABLE tasks ADD COLUMN callback TEXT;
UPDATE tasks SET ended_us = read_time_us WHERE status IN ('done', 'failed', 'cancelled');
UPDATE tasks SET archive = 'kept' WHERE status = 'done';
ALTER TABLE spaces ADD COLUMN updates_cosine REAL;
ALTER TABLE spaces ADD COLUMN matching TEXT;
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;
"""
"""Statements that bring a file of version 1 to version 2; `open_writer` runs them in one transaction."""


def object_key(space_id: int, row: int) -> int:
    """Key of an object, or of the code chunk that starts at `row`."""
    return space_id << ROW_BITS | row


def key_range(space_id: int) -> tuple[int, int]:
    """First and last possible key of a space, both inclusive."""
    return space_id << ROW_BITS, space_id << ROW_BITS | ROW_MASK
