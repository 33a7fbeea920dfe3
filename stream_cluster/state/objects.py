"""Objects in a partition's database: one row per object and space, with the columns that filters use."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from stream_cluster.messages import Descriptor, Metadata
from stream_cluster.state.schema import DESCRIPTOR_COLUMNS, METADATA_COLUMNS, ROW_MASK, object_key

_COLUMNS = ("key", "space_id", "object_id", *(name for name, _ in METADATA_COLUMNS + DESCRIPTOR_COLUMNS))
_REQUIRED = 3
_PLAIN = tuple(name for name, kind in METADATA_COLUMNS if kind != "JSON")
_JSON = tuple(name for name, kind in METADATA_COLUMNS if kind == "JSON")
# The plain columns come first in the table, so a row is the concatenation of three tuples.
assert tuple(name for name, _ in METADATA_COLUMNS) == _PLAIN + _JSON

_encode = msgspec.json.Encoder().encode


def _json_text(value: object) -> str | None:
    """JSON text of a value; an absent value or an empty list is NULL."""
    if value is None or value == ():
        return None
    return _encode(value).decode()


def metadata_row(metadata: Metadata) -> tuple[Any, ...]:
    """Values of the metadata columns, in the order of the table."""
    plain = [getattr(metadata, name) for name in _PLAIN]
    return (*plain, *(_json_text(getattr(metadata, name)) for name in _JSON))


def object_row(
    space_id: int, row: int, object_id: str, metadata: tuple[Any, ...], descriptor: Descriptor
) -> tuple[Any, ...]:
    """One row of `objects`; `metadata` as `metadata_row` made it."""
    return (
        object_key(space_id, row),
        space_id,
        object_id,
        *metadata,
        descriptor.attribute_id,
        descriptor.image,
        descriptor.quality,
    )


def insert_objects(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows made by `object_row`.

    Columns that are NULL in all of them are left out: binding forty values takes most of an insert's time,
    and objects seldom have more than a dozen.
    """
    kept = {
        name: values
        for number, (name, values) in enumerate(zip(_COLUMNS, zip(*rows, strict=True), strict=True))
        if number < _REQUIRED or values.count(None) < len(rows)
    }
    sql = f"INSERT INTO objects ({', '.join(kept)}) VALUES ({', '.join('?' * len(kept))})"
    connection.executemany(sql, zip(*kept.values(), strict=True))


def known_rows(connection: sqlite3.Connection, space_id: int, object_ids: Sequence[str]) -> dict[str, int]:
    """Rows of those of the given ids that the space holds."""
    found = connection.execute(
        "SELECT object_id, key FROM objects "
        "WHERE space_id = ? AND object_id IN (SELECT value FROM json_each(?))",
        (space_id, _encode(object_ids).decode()),
    )
    return {object_id: key & ROW_MASK for object_id, key in found}


def all_rows(connection: sqlite3.Connection, space_id: int) -> dict[str, int]:
    """Row of every object of a space, by id."""
    found = connection.execute("SELECT object_id, key FROM objects WHERE space_id = ?", (space_id,))
    return {object_id: key & ROW_MASK for object_id, key in found}


def changed_columns(metadata: Metadata, fields: Collection[str]) -> dict[str, Any]:
    """New values of the columns of the given fields of `Metadata`."""
    return {
        name: _json_text(value) if kind == "JSON" else value
        for name, kind in METADATA_COLUMNS
        if name in fields
        for value in (getattr(metadata, name),)
    }


def update_objects(
    connection: sqlite3.Connection, space_id: int, updates: Sequence[tuple[int, dict[str, Any]]]
) -> None:
    """Set columns, as `changed_columns` made them, of the objects of these rows, one after another."""
    for row, values in updates:
        # The names are those of METADATA_COLUMNS, never a sender's.
        columns = ", ".join(f"{name} = ?" for name in values)
        connection.execute(
            f"UPDATE objects SET {columns} WHERE key = ?", (*values.values(), object_key(space_id, row))
        )


def delete_objects(connection: sqlite3.Connection, keys: Sequence[int]) -> None:
    """Delete the objects of these keys."""
    connection.execute(
        "DELETE FROM objects WHERE key IN (SELECT value FROM json_each(?))", (_encode(keys).decode(),)
    )
