"""A database file as compressed blocks, and back, in bounded memory.

Every block is a Zstandard frame of its own, so a packed database is what `zstd -d` reads, and no block needs
another one. Blocks of the same size are made of the same number of bytes, so memory is that of a few blocks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import cramjam

from stream_cluster.errors import BackupDamaged
from stream_cluster.faults import fault_point
from stream_cluster.model import Interrupt, Progress
from stream_cluster.state.backup.manifest import Manifest

BLOCK_BYTES = 4 << 20
# Codes hardly compress, ids and metadata do at any level: the first one is three times as fast as the third.
_LEVEL = 1


class Packer:
    """Packs a file while it is iterated over; afterwards it knows sizes and checksums."""

    def __init__(self, path: Path, interrupt: Interrupt, progress: Progress) -> None:
        self._path = path
        self._interrupt = interrupt
        self._progress = progress
        self._raw = hashlib.sha256()
        self._packed = hashlib.sha256()
        self.blocks: list[int] = []
        """Packed size of each block so far."""

    def __iter__(self) -> Iterator[bytes]:
        """Blocks in order. Raises Cancelled or TaskError by the interrupt, between two blocks."""
        size_bytes = self._path.stat().st_size
        with self._path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                self._interrupt.check()
                fault_point("backup_upload")
                self._raw.update(block)
                packed = bytes(cramjam.zstd.compress(block, _LEVEL))
                self._packed.update(packed)
                self.blocks.append(len(packed))
                yield packed
                self._progress("store", len(self.blocks) * BLOCK_BYTES / max(size_bytes, BLOCK_BYTES))
        # The last moment at which what was stored can be dropped.
        self._interrupt.check()

    @property
    def database_sha256(self) -> str:
        """Of what was read."""
        return self._raw.hexdigest()

    @property
    def data_sha256(self) -> str:
        """Of what was packed."""
        return self._packed.hexdigest()


def unpack(
    manifest: Manifest, blocks: Iterator[bytes], target: BinaryIO, interrupt: Interrupt, progress: Progress
) -> None:
    """Write the database of a backup to a file, and make sure that it is what was backed up.

    Args:
        manifest: of the backup.
        blocks: the packed blocks, in order, as `manifest.blocks` cuts them.
        target: takes the database; synced at the end.

    Raises:
        BackupDamaged: something is missing, too much, or changed.
        Cancelled, TaskError: by `interrupt`.
    """
    raw, packed = hashlib.sha256(), hashlib.sha256()
    written = 0
    for number, size in enumerate(manifest.blocks):
        interrupt.check()
        block = next(blocks, b"")
        if len(block) != size:
            raise BackupDamaged(f"{manifest.data}: block {number} has {len(block)} bytes, expected {size}")
        packed.update(block)
        expected = min(manifest.block_bytes, manifest.database_bytes - written)
        plain = _decompressed(block, expected, f"{manifest.data}: block {number}")
        raw.update(plain)
        target.write(plain)
        written += expected
        progress("restore", written / manifest.database_bytes)
    for name, found, wanted in (
        ("data", packed.hexdigest(), manifest.data_sha256),
        ("database", raw.hexdigest(), manifest.database_sha256),
    ):
        if found != wanted:
            raise BackupDamaged(f"{manifest.data}: SHA-256 of the {name} is {found}, expected {wanted}")
    target.flush()
    os.fsync(target.fileno())


def _decompressed(block: bytes, size: int, what: str) -> memoryview:
    plain = bytearray(size)
    try:
        # Into a buffer of the size that it must have: a frame that lies about its size fills no memory.
        written = cramjam.zstd.decompress_into(block, plain)
    except (cramjam.DecompressionError, ValueError) as error:
        raise BackupDamaged(f"{what}: cannot be decompressed: {error}") from error
    if written != size:
        raise BackupDamaged(f"{what}: holds {written} bytes, expected {size}")
    return memoryview(plain)
