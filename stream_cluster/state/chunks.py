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
from stream_cluster.state.schema import ROW_BITS, ROW_MASK, key_range, object_key

# A compacted forest is stored in pieces, so that no blob nears SQLite's limit of 1 GB.
# Small pieces, because one that holds a link of a deleted object is written again.
_LINKS_PER_CHUNK = 16_384
# Rows handed to a matcher at once while loading: small enough for bounded memory, large enough to be quick.
_LOAD_ROWS = 8192


def write_codes(connection: sqlite3.Connection, space_id: int, first_row: int, codes: Codes) -> None:
    """Append the codes of consecutive rows as one chunk."""
    data = codes.tobytes()
    connection.execute(
        "INSERT INTO codes (key, rows, crc32, data) VALUES (?, ?, ?, ?)",
        (object_key(space_id, first_row), len(codes), _checksum(data), data),
    )


def erase_codes(
    connection: sqlite3.Connection, space_id: int, dim: int, rows: npt.NDArray[np.uint32]
) -> None:
    """Overwrite the codes of the given rows with zeros. A chunk with nothing else left gives up its space.

    SQLite compares a value of unchanged size with the stored one and writes only the pages that differ, so a
    row costs a page or two of the write-ahead log, not its whole chunk.

    Raises:
        StateCorrupt: a chunk contradicts its checksum, or a row has no code.
    """
    rows = np.sort(rows)
    erased = 0
    for key, count, first in _chunks(connection, space_id):
        begin, end = np.searchsorted(rows, [first, first + count])
        if begin == end:
            continue
        codes = _read_chunk(connection, key, count, dim).copy()
        codes[rows[begin:end] - first] = 0
        data = codes.tobytes() if codes.any() else b""
        connection.execute("UPDATE codes SET crc32 = ?, data = ? WHERE key = ?", (_checksum(data), data, key))
        erased += int(end - begin)
    if erased != len(rows):
        raise StateCorrupt(f"space {space_id}: {len(rows) - erased} of {len(rows)} rows have no code")


def read_codes(connection: sqlite3.Connection, space_id: int, dim: int) -> Iterator[tuple[int, Codes]]:
    """Yield (first row, codes of shape (n, dim)) in row order, many small chunks joined into larger blocks.

    Codes of deleted objects are zeros.

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
        parts.append(_chunk_bytes(data, crc32, rows * dim, f"codes of space {space_id} from row {row}"))
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
    for key, count, first in _chunks(connection, space_id):
        begin, end = np.searchsorted(wanted, [first, first + count])
        if begin == end:
            continue
        codes = _read_chunk(connection, key, count, dim)
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
            (space_id, int(merged), len(part), _checksum(data), data),
        )


def replace_links(connection: sqlite3.Connection, seq: int, links: Links) -> None:
    """Put other links into a chunk; one without links is deleted, one that is gone stays so."""
    if not len(links):
        connection.execute("DELETE FROM links WHERE seq = ?", (seq,))
        return
    data = pack_links(links)
    connection.execute(
        "UPDATE links SET links = ?, crc32 = ?, data = ? WHERE seq = ?",
        (len(links), _checksum(data), data, seq),
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
    return concatenate_links([part.above(above) for _, part in link_chunks(connection, space_id, last_seq)])


def link_chunks(
    connection: sqlite3.Connection, space_id: int, last_seq: int | None = None
) -> Iterator[tuple[int, Links]]:
    """(sequence number, links) of each chunk of a space, in the order they were stored.

    Raises:
        StateCorrupt: a chunk contradicts its checksum or its count.
    """
    cursor = connection.execute(
        "SELECT seq, links, crc32, data FROM links WHERE space_id = ? AND seq <= ? ORDER BY seq",
        (space_id, 2**62 if last_seq is None else last_seq),
    )
    for seq, count, crc32, data in cursor:
        yield seq, unpack_links(_verified(data, crc32, count * 12, f"links chunk {seq} of space {space_id}"))


def link_counts(connection: sqlite3.Connection, space_id: int) -> tuple[int, int]:
    """(links of the compacted forest, links that wait to be merged)."""
    counts = dict(
        connection.execute(
            "SELECT merged, sum(links) FROM links WHERE space_id = ? GROUP BY merged", (space_id,)
        ).fetchall()
    )
    return counts.get(1, 0), counts.get(0, 0)


def _chunks(connection: sqlite3.Connection, space_id: int) -> list[tuple[int, int, int]]:
    """(key, rows, first row) of each code chunk of a space, in row order."""
    chunks = connection.execute(
        "SELECT key, rows FROM codes WHERE key BETWEEN ? AND ? ORDER BY key", key_range(space_id)
    )
    return [(key, count, key & ROW_MASK) for key, count in chunks]


def _read_chunk(connection: sqlite3.Connection, key: int, count: int, dim: int) -> Codes:
    crc32, data = connection.execute("SELECT crc32, data FROM codes WHERE key = ?", (key,)).fetchone()
    what = f"codes of space {key >> ROW_BITS} from row {key & ROW_MASK}"
    return _as_codes([_chunk_bytes(data, crc32, count * dim, what)], dim)


def _chunk_bytes(data: bytes, crc32: int, size: int, what: str) -> bytes:
    """The codes of a chunk, verified; one whose objects are all deleted is stored without bytes."""
    if not data:
        _verified(data, crc32, 0, what)
        return bytes(size)
    return _verified(data, crc32, size, what)


def _checksum(data: bytes) -> int:
    """crc32 as a signed integer: SQLite then keeps it in four bytes, but for one in 250, whatever it is.

    A chunk that is overwritten thus keeps its size, see `erase_codes`.
    """
    crc32 = zlib.crc32(data)
    return crc32 - (1 << 32) if crc32 >= 1 << 31 else crc32


def _verified(data: bytes, crc32: int, size: int, what: str) -> bytes:
    if len(data) != size:
        raise StateCorrupt(f"{what}: {len(data)} bytes, expected {size}")
    found = zlib.crc32(data)
    # Version 1 stored it unsigned.
    expected = crc32 & 0xFFFF_FFFF
    if found != expected:
        raise StateCorrupt(f"{what}: checksum {found:#010x}, expected {expected:#010x}")
    return data


def _as_codes(parts: list[bytes], dim: int) -> Codes:
    return np.frombuffer(b"".join(parts), np.int8).reshape(-1, dim)
