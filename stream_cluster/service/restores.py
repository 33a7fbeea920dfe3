"""A partition's state from its newest backup, before it is opened, if that is better than what the disk has.

The database on the disk is kept unless the log no longer has what it needs next, or it is far behind
(`backup.replace_behind_records`). A worker that has no state of a partition, or one that ends in a gap of the
log, waits for a store that does not answer: a state built from what is left of the log would be a worse
answer than a late one. A backup that is damaged is passed over for the next older one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from stream_cluster.config import Settings
from stream_cluster.errors import BackupDamaged, BackupsUnavailable, Cancelled, StateError
from stream_cluster.model import Interrupt
from stream_cluster.service.backup_store import make_backup_store
from stream_cluster.service.bucket import CHECK_RETRY_S
from stream_cluster.service.logs import get_logger
from stream_cluster.service.metrics import Metrics
from stream_cluster.service.partition_backups import PartitionBackups
from stream_cluster.service.threads import in_daemon, until
from stream_cluster.state.backup.choose import Reason, candidates, reason_to_restore
from stream_cluster.state.backup.manifest import Manifest
from stream_cluster.state.backup.place import clean_up, local_offset, place_database, restoring_path
from stream_cluster.state.schema import FORMAT_VERSION

_log = get_logger(__name__)
_RETRY_S = 5.0
_PLACING_S = 60.0


class Restores:
    """Does nothing when the settings name no place for backups."""

    def __init__(self, settings: Settings, partitions: int, metrics: Metrics) -> None:
        """`partitions` of the events topic. The state directory is this process's alone by now."""
        self._settings = settings
        self._directory = Path(settings.state.directory)
        self._topic = settings.kafka.events_topic
        self._partitions = partitions
        self._metrics = metrics
        self._interrupts: dict[int, Interrupt] = {}
        clean_up(self._directory)

    def cancel(self, number: int) -> None:
        """Let `before_open` of a partition end."""
        if (interrupt := self._interrupts.get(number)) is not None:
            interrupt.cancel()

    async def before_open(self, number: int, log_range: Callable[[], Awaitable[tuple[int, int]]]) -> None:
        """Put a backup in the place of a partition's database, if that is better.

        `log_range` asks for the first offset of the log, and the offset after its last.

        Raises:
            Cancelled: by `cancel`.
            StateError: the database on the disk cannot be read, there is no room for the backup, or no backup
                is whole and the log does not begin at 0.
        """
        if not self._settings.backup.enabled:
            return
        self._interrupts[number] = interrupt = Interrupt()
        try:
            local = await in_daemon(lambda: local_offset(self._directory, number, self._topic), "look")
            begin, end = await log_range()
            far_behind = self._settings.backup.replace_behind_records
            reason = reason_to_restore(local, begin, end, far_behind)
            if reason is None:
                return
            restore = _Restore(self, number, reason, local, begin, end, interrupt)
            while not await self._tried(number, restore, must=reason != "far_behind"):
                await until(interrupt, asyncio.sleep(_RETRY_S))
        finally:
            del self._interrupts[number]

    async def _tried(self, number: int, restore: _Restore, *, must: bool) -> bool:
        """False to try again later."""
        running = in_daemon(lambda: restore.run(quick=not must), f"restore-{number}")
        try:
            await until(restore.interrupt, asyncio.shield(running))
            running.result()
        except BackupsUnavailable as error:
            _log.warning("restore_failed", partition=number, error=str(error), retrying=must)
            return not must
        except Cancelled:
            # Whoever opens the partition next must find the one database or the other.
            await in_daemon(lambda: restore.placing.acquire(timeout=_PLACING_S), "wait-for-restore")
            raise
        except OSError as error:
            raise StateError(f"{self._directory}: {error.strerror or error}") from error
        return True

    # -- used by a restore, in its thread ------------------------------------------------------------------

    def of(self, number: int, *, quick: bool) -> PartitionBackups:
        """The backups of a partition. `quick`: whoever asks can do without."""
        store = make_backup_store(self._settings, CHECK_RETRY_S if quick else None)
        return PartitionBackups(store, self._topic, number)

    def misfit(self, manifest: Manifest) -> str | None:
        """Why the state in a backup is not one for this service; None when it is."""
        found = (manifest.partitions, manifest.partitioner)
        expected = (self._partitions, self._settings.kafka.partitioner)
        if found != expected:
            return f"made for partitions and partitioner {found}, expected {expected}"
        if manifest.state_format > FORMAT_VERSION:
            return f"state format {manifest.state_format}, but this release reads format {FORMAT_VERSION}"
        return None

    @property
    def directory(self) -> Path:
        """Of the state."""
        return self._directory

    @property
    def far_behind(self) -> int | None:
        """See `backup.replace_behind_records`."""
        return self._settings.backup.replace_behind_records

    @property
    def metrics(self) -> Metrics:
        """Of the service."""
        return self._metrics


@dataclass(frozen=True, slots=True)
class _Restore:
    """One look for a backup, and its way to the disk. Blocks."""

    owner: Restores
    number: int
    reason: Reason
    local: int | None
    """next_offset on the disk."""
    begin: int
    """First offset of the log; `end` is the one after its last."""
    end: int
    interrupt: Interrupt
    placing: threading.Lock = field(default_factory=threading.Lock)
    """Held while the database takes its place, which an interrupt does not stop."""

    def run(self, *, quick: bool) -> None:
        """Restore the best backup that is whole; do nothing when there is none.

        Raises:
            StateError: see `Restores.before_open`.
            BackupsUnavailable, OSError, Cancelled: it may be tried again.
        """
        began = time.monotonic()
        backups = self.owner.of(self.number, quick=quick)
        keys = candidates(
            backups.newest_first(),
            self.reason,
            local=self.local,
            begin=self.begin,
            end=self.end,
            far_behind=self.owner.far_behind,
        )
        for key in keys:
            try:
                manifest = backups.manifest(key)
                if (problem := self.owner.misfit(manifest)) is not None:
                    self._pass_over("unfit", backups.url(key), problem)
                    continue
                target = restoring_path(self.owner.directory, self.number)
                backups.restore(manifest, target, self.interrupt)
            except BackupDamaged as error:
                self._pass_over("damaged", backups.url(key), str(error))
                continue
            with self.placing:
                try:
                    self.interrupt.check()
                    place_database(target, self.owner.directory, self.number)
                finally:
                    target.unlink(missing_ok=True)
            self._restored(manifest, time.monotonic() - began)
            return
        if keys and self.local is None and self.begin > 0:
            raise StateError(
                f"partition {self.number}: none of {len(keys)} backups can be restored, and the log begins "
                f"at {self.begin}, so it lacks something; mend the backups, or delete them to go on without"
            )

    def _pass_over(self, result: str, url: str, problem: str) -> None:
        self.owner.metrics.restores.labels(result).inc()
        _log.warning("backup_passed_over", partition=self.number, result=result, backup=url, problem=problem)

    def _restored(self, manifest: Manifest, seconds: float) -> None:
        self.owner.metrics.restores.labels("restored").inc()
        self.owner.metrics.restore_duration.observe(seconds)
        _log.info(
            "partition_restored",
            partition=self.number,
            reason=self.reason,
            epoch=manifest.epoch,
            next_offset=manifest.next_offset,
            local_offset=self.local,
            objects=manifest.objects,
            size_bytes=manifest.data_bytes,
            seconds=round(seconds, 3),
        )
