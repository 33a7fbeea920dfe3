"""What a backup is called and what its manifest says.

A backup is two objects in the folder `<topic>/<partition>/` of a store:

    <epoch>-<next_offset>-<created>-<token>.zst    the database, packed (see `pack`)
    <epoch>-<next_offset>-<created>.json           the manifest, written last: without it there is no backup

The numbers have leading zeros, so that names sort as backups do. A third kind of object,
`epochs/<epoch>.json`, says that somebody has taken an epoch: it is created once and never written again, so
no two owners of a partition have the same, and whoever came later has the higher.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

import msgspec

from stream_cluster.errors import BackupDamaged

VERSION = 1

# Of a block in memory, whatever a manifest says.
_MAX_BLOCK_BYTES = 64 << 20
_NAME = re.compile(r"(\d{10})-(\d{19})-(\d{16})\.json")
_DATA = re.compile(r"\d{10}-\d{19}-\d{16}-[0-9a-f]{8}\.zst")
_EPOCH = re.compile(r"(\d{10})\.json")


class BackupKey(NamedTuple):
    """Identifies a backup of a partition. Of two, the greater is the newer."""

    epoch: int
    """Of the owner that made it: a later owner of the partition has a higher one."""
    next_offset: int
    """Of the partition's own topic: first offset to read after it was restored."""
    created_us: int
    """Microseconds since the epoch. Decides between backups of one owner at one offset only."""

    @property
    def name(self) -> str:
        """Name of the manifest, without its folder."""
        return f"{self.epoch:010d}-{self.next_offset:019d}-{self.created_us:016d}.json"


class Offset(msgspec.Struct, frozen=True):
    """Where to go on reading a topic partition."""

    topic: str
    partition: int
    next_offset: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known of a backup without reading it."""

    format: Literal["stream-cluster-backup"] = "stream-cluster-backup"
    version: int = VERSION
    topic: str
    partition: int
    partitions: int
    partitioner: str
    epoch: int
    next_offset: int
    created_us: int
    made_by: str
    """Version of the software."""
    state_format: int
    offsets: list[Offset]
    """next_offset of every topic partition that the state has read."""
    objects: int
    fingerprint: str
    """Of what the state holds; equal when nothing has changed since."""
    database_bytes: int
    database_sha256: str
    data: str
    """Name of the packed database, beside the manifest."""
    data_bytes: int
    data_sha256: str
    block_bytes: int
    """Bytes of the database in each block but the last."""
    blocks: list[int]
    """Packed size of each block, in order."""

    @property
    def key(self) -> BackupKey:
        """What its name is made of."""
        return BackupKey(self.epoch, self.next_offset, self.created_us)


def folder(topic: str, partition: int) -> PurePosixPath:
    """Where the backups of a partition are. A topic's name is a legal folder name."""
    return PurePosixPath(topic, str(partition))


def parse_key(name: str) -> BackupKey | None:
    """The key in a manifest's name; None for any other name."""
    found = _NAME.fullmatch(name)
    return None if found is None else BackupKey(*map(int, found.groups()))


def is_data(name: str) -> bool:
    """Whether it is the name of a packed database."""
    return _DATA.fullmatch(name) is not None


def data_name(key: BackupKey, token: str) -> str:
    """Name of the packed database; `token`, eight hexadecimal digits, keeps two writers apart."""
    return f"{key.name.removesuffix('.json')}-{token}.zst"


def epoch_name(epoch: int) -> str:
    """Name of the object that says an epoch is taken, without its folder `epochs`."""
    return f"{epoch:010d}.json"


def parse_epoch(name: str) -> int | None:
    """The epoch in such a name; None for any other name."""
    found = _EPOCH.fullmatch(name)
    return None if found is None else int(found.group(1))


def next_epoch(taken: Iterable[int], backups: Iterable[BackupKey], generation: int) -> int:
    """An epoch above all that were taken or used, and no lower than the consumer group's generation.

    A generation alone is not enough: it begins anew when the group is deleted or has another name.
    """
    used = [*taken, *(key.epoch for key in backups)]
    return max(generation, 1 + max(used, default=0))


def encode_manifest(manifest: Manifest) -> bytes:
    """As it is stored: JSON, one field a line."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def decode_manifest(data: bytes, name: str) -> Manifest:
    """A stored manifest.

    Raises:
        BackupDamaged: not a manifest of this format and version, or one that contradicts its name.
    """
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise BackupDamaged(f"manifest {name}: {error}") from error
    if manifest.version != VERSION:
        raise BackupDamaged(f"manifest {name}: found version {manifest.version}, expected {VERSION}")
    sizes = len(manifest.blocks) * manifest.block_bytes
    fits = (
        0 < manifest.block_bytes <= _MAX_BLOCK_BYTES
        and sizes - manifest.block_bytes < manifest.database_bytes <= sizes
    )
    if manifest.key.name != name or sum(manifest.blocks) != manifest.data_bytes or not fits:
        raise BackupDamaged(f"manifest {name}: its name, sizes and blocks contradict each other")
    if not is_data(manifest.data):
        raise BackupDamaged(f"manifest {name}: found {manifest.data!r}, expected the name of a database")
    return manifest
