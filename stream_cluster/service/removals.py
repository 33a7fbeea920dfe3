"""Archives that go: on request, or after their time to live. And tasks that are forgotten after that.

What has to go is in the state, so a restart goes on with it. Each step can be repeated: the archive is
removed, then the status says so, then the state notes that it was said.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import msgspec

from stream_cluster.config import Settings
from stream_cluster.errors import Cancelled, ResultsUnavailable
from stream_cluster.messages import Rejection, TaskStatus, decode_status
from stream_cluster.service.clock import now_us
from stream_cluster.service.ingest import PartitionRunner
from stream_cluster.service.logs import get_logger
from stream_cluster.service.metrics import Metrics
from stream_cluster.service.result_store import ResultStore
from stream_cluster.service.statuses import Statuses, make_status, now_text
from stream_cluster.service.threads import in_daemon
from stream_cluster.snapshot.paths import archive_name
from stream_cluster.state import tasks as stored_tasks
from stream_cluster.state.tasks import Removal, StoredTask

_log = get_logger(__name__)


class Removals:
    """Looks again and again for archives to remove."""

    def __init__(self, settings: Settings, store: ResultStore, statuses: Statuses, metrics: Metrics) -> None:
        self._settings = settings
        self._store = store
        self._statuses = statuses
        self._metrics = metrics
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look at once: somebody asked for a removal."""
        self._wake.set()

    async def run(self, runners: Mapping[int, PartitionRunner]) -> None:
        """Sweep the partitions of this worker until cancelled."""
        while True:
            self._wake.clear()
            for runner in list(runners.values()):
                # A partition that went away is swept by its next owner.
                with contextlib.suppress(Cancelled):
                    await self._sweep(runner)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.results.sweep_interval_s):
                    await self._wake.wait()

    async def say_again(self, runner: PartitionRunner, stored: StoredTask, removal: Removal) -> None:
        """Answer a request to delete what is gone already."""
        await self._statuses.send(removed_status(stored, removal), runner.outputs)

    async def _sweep(self, runner: PartitionRunner) -> None:
        partition = runner.partition
        due = await runner.between_batches(
            lambda: runner.in_engine(partition.change_tasks, stored_tasks.due_removals, now_us())
        )
        for stored in due:
            try:
                await self._remove(runner, stored)
            except ResultsUnavailable as error:
                self._metrics.removal_failures.inc()
                _log.warning(
                    "archive_not_removed",
                    task_id=stored.task_id,
                    partition=partition.identity.partition,
                    error=str(error),
                    retrying=True,
                )
        before_us = now_us() - self._settings.tasks.history_s * 1_000_000
        forgotten = await runner.between_batches(
            lambda: runner.in_engine(partition.change_tasks, stored_tasks.forget_tasks, before_us)
        )
        if forgotten:
            _log.info("tasks_forgotten", partition=runner.number, tasks=forgotten)

    async def _remove(self, runner: PartitionRunner, stored: StoredTask) -> None:
        removal: Removal = "deleted" if stored.asked == "delete" else "expired"
        account_id, task_id = stored.account_id, stored.task_id
        if stored.archive == "kept":
            name = archive_name(account_id, task_id)
            await in_daemon(lambda: self._store.delete(name), "delete-archive")
        await self._statuses.send(removed_status(stored, removal), runner.outputs)
        await runner.between_batches(
            lambda: runner.in_engine(
                runner.partition.change_tasks, stored_tasks.set_removed, account_id, task_id, removal
            )
        )
        if stored.archive == "kept":
            self._metrics.archives_removed.labels(removal).inc()
        _log.info("archive_removed", task_id=task_id, partition=runner.number, reason=removal)


def removed_status(stored: StoredTask, removal: Removal) -> TaskStatus:
    """The last status of a task, less its archive."""
    last = None if stored.last_status is None else decode_status(stored.last_status)
    if last is None or isinstance(last, Rejection):
        # Ended under a release that did not keep the status.
        return make_status(stored.account_id, stored.task_id, stored.status, 1.0, archive_removed=removal)
    return msgspec.structs.replace(
        last, time=now_text(), archive=None, result_url=None, expires=None, archive_removed=removal
    )
