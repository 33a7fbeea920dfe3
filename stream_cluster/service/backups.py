"""The backups of the partitions that this worker owns: made on time, and at the stop.

A backup runs in a thread of its own, at a low priority, one at a time; ingest never waits for one. A store
that does not answer costs backups, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_cluster.config import Settings
from stream_cluster.errors import BackupsUnavailable, Cancelled, ConfigError
from stream_cluster.model import Interrupt
from stream_cluster.service.backup_store import make_backup_store
from stream_cluster.service.clock import now_us
from stream_cluster.service.ingest import PartitionRunner
from stream_cluster.service.kafka import generation_of, is_member
from stream_cluster.service.logs import get_logger
from stream_cluster.service.metrics import Metrics
from stream_cluster.service.partition_backups import Made, PartitionBackups, TakenOver
from stream_cluster.service.threads import in_daemon
from stream_cluster.state.backup.copy import note_epoch, read_facts, store_epoch
from stream_cluster.state.backup.place import SCRATCH
from stream_cluster.state.database import database_path

_log = get_logger(__name__)
_TICK_S = 1.0
_RETRY_S = 60.0
_ANSWER_S = 30.0
# Above that of the engine's threads, so that they go first: a tenth of their share where cores are scarce.
_NICENESS = 10


@dataclass(slots=True)
class _Followed:
    """What is known of an open partition."""

    runner: PartitionRunner
    due_at: float | None = None
    """Monotonic time of the next backup; None until the store was looked at."""
    epoch: int | None = None
    """None until one was taken."""
    stored_at: float = field(default_factory=time.monotonic)
    """Monotonic time at which the newest backup was what the state is; at first, when it was opened."""


class Backups:
    """Nothing but a few comparisons when the settings name no place for backups."""

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer, metrics: Metrics) -> None:
        self._settings = settings.backup
        self._directory = Path(settings.state.directory)
        self._topic = settings.kafka.events_topic
        self._owner = settings.kafka.client_id
        self._consumer = consumer
        self._metrics = metrics
        self._store = make_backup_store(settings) if settings.backup.enabled else None
        self._interrupt = Interrupt()
        self._followed: dict[int, _Followed] = {}

    async def check(self) -> None:
        """Say early that nothing can be stored. No start fails: it may be different later."""
        if self._store is not None:
            try:
                await in_daemon(self._store.check, "check-backups")
            except ConfigError as error:
                _log.warning("backups_unavailable", error=str(error))

    async def run(self, runners: Mapping[int, PartitionRunner]) -> None:
        """Back up the partitions of this worker when they are due, until cancelled."""
        if self._store is None:
            await asyncio.Event().wait()
        try:
            while True:
                for number, runner in list(runners.items()):
                    if runners.get(number) is runner:
                        await self._step(number, runner)
                for number in self._followed.keys() - runners.keys():
                    self._forget(number)
                await asyncio.sleep(_TICK_S)
        finally:
            # A copy under way is of no use any more.
            self._interrupt.cancel()

    async def final(self, numbers: Iterable[int]) -> None:
        """Back up partitions that are closed and still ours, within one deadline for all of them."""
        timeout_s = self._settings.final_timeout_s
        if self._store is None or not timeout_s:
            return
        self._interrupt = interrupt = Interrupt()
        try:
            async with asyncio.timeout(timeout_s):
                for number in sorted(numbers):
                    followed = self._followed.get(number)
                    await self._back_up(number, None if followed is None else followed.epoch, None)
        except TimeoutError:
            interrupt.cancel()
            _log.warning("backup_not_finished", timeout_s=timeout_s)

    def refresh_metrics(self) -> None:
        """Bring gauges up to date that the time changes."""
        for number, followed in self._followed.items():
            age_s = time.monotonic() - followed.stored_at
            self._metrics.backup_age.labels(str(number)).set(age_s)

    # -- one partition ---------------------------------------------------------------------------------

    async def _step(self, number: int, runner: PartitionRunner) -> None:
        followed = self._followed.get(number)
        if followed is None or followed.runner is not runner:
            followed = self._followed[number] = _Followed(runner)
        if followed.due_at is None:
            await self._look(number, followed)
        elif time.monotonic() >= followed.due_at:
            followed.epoch, is_done = await self._back_up(number, followed.epoch, runner)
            if is_done:
                followed.stored_at = time.monotonic()
            wait_s = self._settings.interval_s if is_done else min(_RETRY_S, self._settings.interval_s)
            followed.due_at = time.monotonic() + wait_s

    async def _look(self, number: int, followed: _Followed) -> None:
        """The first one is due when that of a former process or owner is old enough, not at every start."""
        try:
            keys = await in_daemon(self._of(number).newest_first, "look-for-backups")
        except BackupsUnavailable as error:
            self._failed(number, error)
            followed.due_at = time.monotonic() + min(_RETRY_S, self._settings.interval_s)
            return
        age_s = (now_us() - keys[0].created_us) / 1e6 if keys else self._settings.interval_s
        # A clock that was set back must not put it off.
        followed.due_at = time.monotonic() + min(self._settings.interval_s, self._settings.interval_s - age_s)
        if keys:
            followed.stored_at -= max(0.0, age_s)

    async def _back_up(
        self, number: int, epoch: int | None, runner: PartitionRunner | None
    ) -> tuple[int | None, bool]:
        """Make a backup, of a partition that has no `runner` any more too.

        Returns the epoch (None: take one the next time), and whether the newest backup is what the state was.
        """
        began = time.monotonic()
        backups, path = self._of(number), database_path(self._directory, number)
        try:
            if epoch is None:
                epoch = await self._take_epoch(number, runner)
            taken, interrupt, loop = epoch, self._interrupt, asyncio.get_running_loop()

            def is_owner() -> bool:
                asked = asyncio.run_coroutine_threadsafe(self._is_owner(number, path), loop)
                try:
                    return asked.result(_ANSWER_S)
                except TimeoutError:
                    return False

            made, removed = await in_daemon(
                lambda: self._make(backups, path, taken, is_owner, interrupt), f"backup-{number}"
            )
        except Cancelled:
            return epoch, False
        except TakenOver:
            # Or the group is being balanced: then a new epoch will be above that of whoever took one.
            self._metrics.backups.labels("taken_over").inc()
            _log.warning("backup_taken_over", partition=number, epoch=epoch)
            return None, False
        except Exception as error:
            # Whatever it is, it costs a backup, and not the service.
            self._failed(number, error)
            return epoch, False
        if made is None:
            self._metrics.backups.labels("unchanged").inc()
        else:
            self._stored(number, made, time.monotonic() - began)
        if removed:
            _log.info("backups_removed", partition=number, backups=removed)
        return epoch, True

    async def _take_epoch(self, number: int, runner: PartitionRunner | None) -> int:
        """Raises TakenOver, Cancelled, BackupsUnavailable, StateError."""
        path = database_path(self._directory, number)
        if not await self._is_owner(number, path):
            raise TakenOver
        generation, owner = generation_of(self._consumer), self._owner
        epoch = await in_daemon(lambda: self._of(number).take_epoch(generation, owner), "take-epoch")
        if runner is None:
            await in_daemon(lambda: note_epoch(path, epoch), "note-epoch")
        else:
            partition = runner.partition
            await runner.between_batches(lambda: runner.in_engine(partition.change_tasks, store_epoch, epoch))
        return epoch

    def _make(
        self,
        backups: PartitionBackups,
        path: Path,
        epoch: int,
        is_owner: Callable[[], bool],
        interrupt: Interrupt,
    ) -> tuple[Made | None, int]:
        """Runs in a thread. Returns the backup, unless nothing had changed, and how many were deleted."""
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        made = None
        if not backups.is_newest(read_facts(path)):
            made = backups.make(
                path, self._directory / SCRATCH, epoch, is_owner=is_owner, interrupt=interrupt
            )
        return made, len(backups.prune(self._settings.keep, self._settings.max_age_s))

    async def _is_owner(self, number: int, path: Path) -> bool:
        followed = self._followed.get(number)
        if followed is not None:
            offset: int | None = followed.runner.next_offset
        else:
            offset = (await in_daemon(lambda: read_facts(path), "read-facts")).next_offset
        partition = TopicPartition(self._topic, number)
        return await is_member(self._consumer, partition, offset or 0)

    def _of(self, number: int) -> PartitionBackups:
        assert self._store is not None
        return PartitionBackups(self._store, self._topic, number)

    def _forget(self, number: int) -> None:
        del self._followed[number]
        self._metrics.forget_backups(number)

    def _stored(self, number: int, made: Made, seconds: float) -> None:
        manifest = made.manifest
        self._metrics.backups.labels("stored").inc()
        self._metrics.backup_duration.observe(seconds)
        self._metrics.backup_size.labels(str(number)).set(manifest.data_bytes)
        _log.info(
            "backup_stored",
            partition=number,
            epoch=manifest.epoch,
            next_offset=manifest.next_offset,
            objects=manifest.objects,
            size_bytes=manifest.data_bytes,
            seconds=round(seconds, 3),
        )

    def _failed(self, number: int, error: Exception) -> None:
        self._metrics.backups.labels("failed").inc()
        _log.warning("backup_failed", partition=number, kind=type(error).__name__, error=str(error))
