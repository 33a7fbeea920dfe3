"""Code and link chunks: checksummed blobs in a partition's database."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from stream_cluster.errors import StateCorrupt
from stream_cluster.graph.links import pack_links, unpack_links
from stream_cluster.model import Codes, Links, concatenate_links
from stream_cluster.state.schema import ROW_MASK, key_range, object_key

# A compacted forest is stored in pieces, so that no blob nears SQLite's limit of 1 GB.
_LINKS_PER_CHUNK = 4_000_000
# Rows handed to a matcher at once while loading: small enough for bounded memory, large enough to be quick.
_LOAD_ROWS = 8192


def write_codes(connection: sqlite3.Connection, space_id: int, first_row: int, codes: Codes) -> None:
    """Append the codes of consecutive rows as one chunk."""
    data = codes.tobytes()
    connection.execute(
        "INSERT INTO codes (key, rows, crc32, data) VALUES (?, ?, ?, ?)",
        (object_key(space_id, first_row), len(codes), zlib.crc32(data), data),
    )


def read_codes(connection: sqlite3.Connection, space_id: int, dim: int) -> Iterator[tuple[int, Codes]]:
    """Yield (first row, codes of shape (n, dim)) in row order, many small chunks joined into larger blocks.

    Raises:
        StateCorrupt: a chunk contradicts its checksum or its row count, or rows are missing.
    """
    parts: list[bytes] = []
    first_row = next_row = 0
    cursor = connection.execute(
        "SELECT key, rows, crc32, data FROM codes WHERE key BETWEEN ? AND ? ORDER BY key", key_range(space_id)
    )
    for key, rows, crc32, data in cursor:
        row = key & ROW_MASK
        if row != next_row:
            raise StateCorrupt(f"space {space_id}: codes jump from row {next_row} to {row}")
        parts.append(_verified(data, crc32, rows * dim, f"codes of space {space_id} from row {row}"))
        next_row += rows
        if next_row - first_row >= _LOAD_ROWS:
            yield first_row, _as_codes(parts, dim)
            parts, first_row = [], next_row
    if parts:
        yield first_row, _as_codes(parts, dim)


def gather_codes(
    connection: sqlite3.Connection, space_id: int, dim: int, rows: npt.NDArray[np.uint32]
) -> Codes:
    """Codes of the given rows, shape (len(rows), dim), in the order given.

    Only chunks that hold a wanted row are read.

    Raises:
        StateCorrupt: a chunk contradicts its checksum, or a row has no code.
    """
    order = np.argsort(rows, kind="stable")
    wanted = rows[order]
    gathered = np.empty((len(rows), dim), np.int8)
    found = 0
    chunks = connection.execute(
        "SELECT key, rows FROM codes WHERE key BETWEEN ? AND ? ORDER BY key", key_range(space_id)
    ).fetchall()
    for key, count in chunks:
        first = key & ROW_MASK
        begin, end = np.searchsorted(wanted, [first, first + count])
        if begin == end:
            continue
        crc32, data = connection.execute("SELECT crc32, data FROM codes WHERE key = ?", (key,)).fetchone()
        block = _verified(data, crc32, count * dim, f"codes of space {space_id} from row {first}")
        codes = np.frombuffer(block, np.int8).reshape(count, dim)
        gathered[order[begin:end]] = codes[wanted[begin:end] - first]
        found += int(end - begin)
    if found != len(rows):
        raise StateCorrupt(f"space {space_id}: {len(rows) - found} of {len(rows)} rows have no code")
    return gathered


def write_links(connection: sqlite3.Connection, space_id: int, links: Links, *, merged: bool) -> None:
    """Append links, as a compacted forest (`merged`) or as a reduced batch that waits to be merged."""
    for begin in range(0, len(links), _LINKS_PER_CHUNK):
        piece = slice(begin, begin + _LINKS_PER_CHUNK)
        part = Links(links.a[piece], links.b[piece], links.similarity[piece])
        data = pack_links(part)
        connection.execute(
            "INSERT INTO links (space_id, merged, links, crc32, data) VALUES (?, ?, ?, ?, ?)",
            (space_id, int(merged), len(part), zlib.crc32(data), data),
        )


def read_links(
    connection: sqlite3.Connection, space_id: int, *, last_seq: int | None = None, above: float = -2.0
) -> Links:
    """All links of a space with a similarity strictly greater than `above`, in the order they were stored.

    Their spanning forest is the forest of the space: compacted links and waiting batches together.
    With `last_seq`, only chunks up to that sequence number.

    Raises:
        StateCorrupt: a chunk contradicts its checksum or its count.
    """
    parts = []
    cursor = connection.execute(
        "SELECT seq, links, crc32, data FROM links WHERE space_id = ? AND seq <= ? ORDER BY seq",
        (space_id, 2**62 if last_seq is None else last_seq),
    )
    for seq, count, crc32, data in cursor:
        block = _verified(data, crc32, count * 12, f"links chunk {seq} of space {space_id}")
        parts.append(unpack_links(block).above(above))
    return concatenate_links(parts)


def _verified(data: bytes, crc32: int, size: int, what: str) -> bytes:
    if len(data) != size:
        raise StateCorrupt(f"{what}: {len(data)} bytes, expected {size}")
    found = zlib.crc32(data)
    if found != crc32:
        raise StateCorrupt(f"{what}: checksum {found:#010x}, expected {crc32:#010x}")
    return data


def _as_codes(parts: list[bytes], dim: int) -> Codes:
    return np.frombuffer(b"".join(parts), np.int8).reshape(-1, dim)
