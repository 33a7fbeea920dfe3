"""The backups of one partition in a store: made, listed, restored and deleted. Blocks; called in threads.

A backup is made in numbered steps:

    1. copy the database beside its writer, and check the copy
    2. store it, packed, under a name that nobody else uses
    3. make sure that nobody has taken a higher epoch meanwhile, and that the group still knows the owner
    4. create the manifest, which must not exist

Killed before the end of step 4 there is no backup, and what was stored is deleted by a later one. A worker
that lost its partition fails in step 3. One that loses it between 3 and 4 has made a true backup of a former
state, which is older than any of the new owner, because its epoch is lower.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from stream_cluster import __version__, files
from stream_cluster.errors import BackupDamaged, BackupsUnavailable
from stream_cluster.faults import fault_point
from stream_cluster.model import Interrupt, Progress, no_progress
from stream_cluster.service.backup_store import BackupStore
from stream_cluster.service.clock import now_us
from stream_cluster.state.backup import choose, manifest
from stream_cluster.state.backup.copy import DatabaseFacts, copy_database
from stream_cluster.state.backup.manifest import BackupKey, Manifest, Offset
from stream_cluster.state.backup.pack import BLOCK_BYTES, Packer, unpack
from stream_cluster.state.backup.place import SCRATCH_PREFIX

# Whoever stores one for longer than that has been gone for long.
_ORPHAN_S = 86_400.0


class TakenOver(Exception):
    """Somebody else owns the partition now."""


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made."""

    manifest: Manifest
    facts: DatabaseFacts


class PartitionBackups:
    """See the module."""

    def __init__(self, store: BackupStore, topic: str, partition: int) -> None:
        self.store = store
        self.topic = topic
        self.partition = partition
        self._folder = manifest.folder(topic, partition)

    def newest_first(self) -> list[BackupKey]:
        """The backups there are, the newest first."""
        names = (manifest.parse_key(name) for name, _ in self.store.names(self._folder))
        return choose.newest_first(key for key in names if key is not None)

    def manifest(self, key: BackupKey) -> Manifest:
        """What a backup says of itself. Raises BackupDamaged."""
        name = self._folder / key.name
        try:
            found = manifest.decode_manifest(self.store.read(name), key.name)
        except FileNotFoundError as error:
            raise BackupDamaged(f"backup {self.store.url(name)}: it is gone") from error
        if (found.topic, found.partition) != (self.topic, self.partition):
            raise BackupDamaged(
                f"backup {self.store.url(name)}: of {found.topic}/{found.partition}, "
                f"expected {self.topic}/{self.partition}"
            )
        return found

    def is_newest(self, facts: DatabaseFacts) -> bool:
        """Whether the newest backup holds just what a database holds now."""
        keys = self.newest_first()
        try:
            return bool(keys) and self.manifest(keys[0]).fingerprint == facts.fingerprint
        except BackupDamaged:
            return False

    def url(self, key: BackupKey) -> str:
        """Where the manifest of a backup is, for people."""
        return self.store.url(self._folder / key.name)

    # -- epochs ----------------------------------------------------------------------------------------

    def _taken(self) -> list[int]:
        names = (manifest.parse_epoch(name) for name, _ in self.store.names(self._folder / "epochs"))
        return [epoch for epoch in names if epoch is not None]

    def take_epoch(self, generation: int, owner: str) -> int:
        """An epoch above all others, for `owner` alone. Older ones are forgotten."""
        while True:
            taken = self._taken()
            epoch = manifest.next_epoch(taken, self.newest_first(), generation)
            # The token tells a try of ours whose answer was lost from somebody else's of the same name.
            note = {"owner": owner, "time_us": now_us(), "token": secrets.token_hex(8)}
            name = self._folder / "epochs" / manifest.epoch_name(epoch)
            if not self.store.create(name, msgspec.json.encode(note)):
                continue
            if self.is_taken_over(epoch):
                # The name may have been free because a later owner had deleted it: it is not ours alone.
                continue
            for old in taken:
                self.store.delete(self._folder / "epochs" / manifest.epoch_name(old))
            return epoch

    def is_taken_over(self, epoch: int) -> bool:
        """Whether somebody has taken a higher epoch."""
        return max(self._taken(), default=0) > epoch

    # -- making one ------------------------------------------------------------------------------------

    def make(
        self,
        path: Path,
        scratch: Path,
        epoch: int,
        *,
        is_owner: Callable[[], bool],
        interrupt: Interrupt,
        progress: Progress = no_progress,
        scratch_prefix: str = SCRATCH_PREFIX,
    ) -> Made | None:
        """Back a database up; None when it has applied nothing, or when there is just this backup already.

        Args:
            path: the database; its writer may go on.
            scratch: a local directory with room for one copy.
            epoch: of the owner.
            is_owner: asked in step 3.

        Raises:
            TakenOver: by step 3; nothing is left in the store.
            BackupsUnavailable, StateError, StateCorrupt: it could not be made.
            Cancelled, TaskError: by `interrupt`.
        """
        with scratch_file(scratch, scratch_prefix) as copy:
            facts = copy_database(path, copy, interrupt, progress)  # 1
            if facts.next_offset is None:
                return None
            key = BackupKey(epoch, facts.next_offset, now_us())
            data = self._folder / manifest.data_name(key, secrets.token_hex(4))
            packer = Packer(copy, interrupt, progress)
            database_bytes = copy.stat().st_size
            try:
                self.store.put(data, packer, database_bytes + (database_bytes >> 4))  # 2
                if self.is_taken_over(epoch) or not is_owner():  # 3
                    raise TakenOver
                interrupt.check()
            except BaseException:
                # What cannot be removed now is removed as an orphan.
                with contextlib.suppress(BackupsUnavailable):
                    self.store.delete(data)
                raise
            made = _manifest(key, facts, packer, data.name, database_bytes)
            fault_point("backup_manifest")
            # When this fails, nobody knows whether it was created: the data stays, and may become an orphan.
            is_new = self.store.create(self._folder / key.name, manifest.encode_manifest(made))  # 4
            if not is_new:
                self.store.delete(data)
                return None
        return Made(made, facts)

    # -- restoring -------------------------------------------------------------------------------------

    def restore(
        self, found: Manifest, target: Path, interrupt: Interrupt, progress: Progress = no_progress
    ) -> None:
        """Write the database of a backup to a new file, which is removed again when that fails.

        Raises:
            BackupDamaged: it is not whole.
            BackupsUnavailable: the store does not answer.
            OSError: there is no room.
            Cancelled, TaskError: by `interrupt`.
        """
        blocks = self.store.blocks(self._folder / found.data, found.blocks)
        try:
            with files.create(target, files.OWNER) as file, contextlib.closing(blocks):
                unpack(found, blocks, file, interrupt, progress)
        except FileNotFoundError as error:
            target.unlink(missing_ok=True)
            raise BackupDamaged(f"backup {self.url(found.key)}: its data is gone: {found.data}") from error
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    # -- retention -------------------------------------------------------------------------------------

    def prune(self, keep: int, max_age_s: float | None) -> list[BackupKey]:
        """Delete the backups that are outdated, and what never became one. Returns the outdated ones."""
        now_s = time.time()
        names = self.store.names(self._folder)
        keys = [key for key in (manifest.parse_key(name) for name, _ in names) if key is not None]
        max_age_us = None if max_age_s is None else round(max_age_s * 1e6)
        gone = choose.outdated(keys, keep=keep, max_age_us=max_age_us, now_us=now_us())
        for key in gone:
            # The manifest first: without it there is no backup.
            self.store.delete(self._folder / key.name)
        dropped = {key.name.removesuffix(".json") for key in gone}
        kept = {key.name.removesuffix(".json") for key in keys} - dropped
        for name, changed_s in names:
            stem = name.rpartition("-")[0]
            is_orphan = stem not in kept and now_s - changed_s > _ORPHAN_S
            is_unfinished = name.startswith(".") and name.endswith(".tmp")
            if (manifest.is_data(name) and (stem in dropped or is_orphan)) or (is_unfinished and is_orphan):
                self.store.delete(self._folder / name)
        return gone


@contextlib.contextmanager
def scratch_file(directory: Path, prefix: str) -> Iterator[Path]:
    """A file of one's own that is gone at the end."""
    files.make_folder(directory, 0o700)
    fd, name = tempfile.mkstemp(dir=directory, prefix=prefix, suffix=".tmp")
    os.close(fd)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _manifest(
    key: BackupKey, facts: DatabaseFacts, packer: Packer, data: str, database_bytes: int
) -> Manifest:
    meta = facts.meta
    return Manifest(
        topic=meta["topic"],
        partition=int(meta["partition"]),
        partitions=int(meta["partitions"]),
        partitioner=meta["partitioner"],
        epoch=key.epoch,
        next_offset=key.next_offset,
        created_us=key.created_us,
        made_by=__version__,
        state_format=facts.state_format,
        offsets=[Offset(*label, offset) for label, offset in sorted(facts.offsets.items())],
        objects=facts.objects,
        fingerprint=facts.fingerprint,
        database_bytes=database_bytes,
        database_sha256=packer.database_sha256,
        data=data,
        data_bytes=sum(packer.blocks),
        data_sha256=packer.data_sha256,
        block_bytes=BLOCK_BYTES,
        blocks=packer.blocks,
    )
