"""Objects in a partition's database: one row per object and space, with the columns that filters use."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from stream_cluster.messages import Descriptor, Metadata
from stream_cluster.state.schema import DESCRIPTOR_COLUMNS, METADATA_COLUMNS, object_key

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


def known_ids(connection: sqlite3.Connection, space_id: int, object_ids: Sequence[str]) -> set[str]:
    """Those of the given ids that the space holds already."""
    found = connection.execute(
        "SELECT object_id FROM objects WHERE space_id = ? AND object_id IN (SELECT value FROM json_each(?))",
        (space_id, _encode(object_ids).decode()),
    )
    return {object_id for (object_id,) in found}
