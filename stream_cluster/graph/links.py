"""Links as bytes, for storage.

Format (version 1), for m links, 12 m bytes, everything little-endian, no header and no padding:

    m x uint32    a            row of the lower end
    m x uint32    b            row of the upper end
    m x float32   similarity   IEEE 754 binary32

Columns rather than records: reading is three views of one buffer, and the columns compress better.
Integrity (checksum, format version) belongs to the container that holds the bytes.
"""

from __future__ import annotations

import numpy as np

from stream_cluster.model import Links

BYTES_PER_LINK = 12


def pack_links(links: Links) -> bytes:
    """The links in the format above, in the order given."""
    return b"".join(
        (
            links.a.astype("<u4", copy=False).tobytes(),
            links.b.astype("<u4", copy=False).tobytes(),
            links.similarity.astype("<f4", copy=False).tobytes(),
        )
    )


def unpack_links(data: bytes) -> Links:
    """The links packed by `pack_links`: read-only arrays over `data`.

    Raises:
        ValueError: the length is not a multiple of 12 bytes.
    """
    count, rest = divmod(len(data), BYTES_PER_LINK)
    if rest:
        raise ValueError(f"packed links: found {len(data)} bytes, expected a multiple of {BYTES_PER_LINK}")
    return Links(
        np.frombuffer(data, "<u4", count, 0).astype(np.uint32, copy=False),
        np.frombuffer(data, "<u4", count, 4 * count).astype(np.uint32, copy=False),
        np.frombuffer(data, "<f4", count, 8 * count).astype(np.float32, copy=False),
    )
