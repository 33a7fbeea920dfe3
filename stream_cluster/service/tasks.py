"""Tasks: from a message on the task topic to an archive and its last status.

A task is stored with its barrier (the end of its partition's log when it was read), waits until ingest has
reached the barrier, takes a view of the state there, and runs in a thread beside ingest. A task that was
under way when the process ended is found in the state and starts again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stream_cluster.config import Settings
from stream_cluster.errors import Cancelled, StreamClusterError, TaskError
from stream_cluster.messages import (
    ArchiveRef,
    AsOf,
    TaskFault,
    TaskRequest,
    TaskStatus,
    decode_task,
    encode_task,
)
from stream_cluster.model import Interrupt
from stream_cluster.service.ingest import PartitionRunner
from stream_cluster.service.logs import get_logger
from stream_cluster.service.metrics import Metrics
from stream_cluster.service.statuses import Statuses, now_text, now_us
from stream_cluster.service.task_history import ReadEnded
from stream_cluster.snapshot.paths import archive_path
from stream_cluster.snapshot.request import ClusteringRequest, resolve_request
from stream_cluster.snapshot.run import SnapshotResult, run_snapshot
from stream_cluster.state.tasks import StoredTask, TaskState
from stream_cluster.state.view import PartitionView

_log = get_logger(__name__)
# How soon a task that waits notices that it was cancelled or that its deadline has passed.
_POLL_S = 0.2


@dataclass(slots=True, eq=False)
class Job:
    """A task that has not ended, in memory."""

    runner: PartitionRunner
    request: ClusteringRequest
    barrier: int
    interrupt: Interrupt
    began: float = field(default_factory=time.monotonic)
    progress: tuple[str, float] = ("wait", 0.0)
    at_barrier: asyncio.Event = field(default_factory=asyncio.Event)
    has_slot: bool = False
    view: PartitionView | None = None
    as_of: Mapping[str, Any] | None = None
    abandoned: bool = False
    """The partition or the process goes away: end without a status, the task starts again elsewhere."""

    @property
    def key(self) -> tuple[str, str]:
        """(account_id, task_id)."""
        return self.request.account_id, self.request.task_id


class Tasks:
    """Runs the tasks of all partitions that this worker owns."""

    def __init__(
        self,
        settings: Settings,
        statuses: Statuses,
        metrics: Metrics,
        threads: Executor,
        read_ended: ReadEnded,
    ) -> None:
        """`threads` run the snapshots; `read_ended` tells what became of tasks that look unfinished."""
        self._settings = settings
        self._statuses = statuses
        self._metrics = metrics
        self._threads = threads
        self._read_ended = read_ended
        self._slots = asyncio.Semaphore(settings.tasks.concurrency)
        self._jobs: dict[tuple[str, str], Job] = {}
        self._drivers: dict[tuple[str, str], asyncio.Task[None]] = {}

    # -- from the task topic ---------------------------------------------------------------------------

    async def accept(
        self,
        runner: PartitionRunner,
        task: TaskRequest,
        barrier: int,
        offsets: Mapping[tuple[str, int], int],
        status: TaskState = "pending",
    ) -> None:
        """Make a new task durable together with the task topic's offsets, then start it if it is pending.

        A task id that the account used before is the same task: nothing happens.
        """
        stored = StoredTask(task.account_id, task.task_id, status, encode_task(task), now_us(), barrier)
        is_new = await runner.between_batches(
            lambda: runner.in_engine(runner.partition.add_task, stored, dict(offsets))
        )
        if is_new and status == "pending":
            _log.info("task_read", task_id=task.task_id, partition=runner.number, barrier=barrier)
            await self._statuses.send(_status(task.account_id, task.task_id, "pending", 0.0))
            await self._start(runner, task, stored)

    async def reject(self, account_id: str, task_id: str, code: str, message: str) -> None:
        """Answer a task that cannot be served."""
        _log.info("task_ended", task_id=task_id, status="failed", code=code)
        self._metrics.tasks.labels("failed").inc()
        fault = TaskFault(code=code, message=message)
        await self._statuses.send(_status(account_id, task_id, "failed", 0.0, error=fault))

    def cancel(self, account_id: str, task_id: str) -> None:
        """Ask a task to stop; one that has ended or was never read stays as it is."""
        job = self._jobs.get((account_id, task_id))
        if job is not None:
            job.interrupt.cancel()

    # -- with partitions -------------------------------------------------------------------------------

    async def resume(self, runner: PartitionRunner) -> None:
        """Start the tasks that a partition's state still has to do."""
        unfinished = await runner.in_engine(runner.partition.unfinished_tasks)
        ended = await self._read_ended() if unfinished else {}
        for stored in unfinished:
            if status := ended.get((stored.account_id, stored.task_id)):
                await self._remember(runner, stored.account_id, stored.task_id, status)
                continue
            task = decode_task(stored.request)
            if not isinstance(task, TaskRequest):
                raise StreamClusterError(f"stored task {stored.task_id}: {task}")
            _log.info("task_resumed", task_id=stored.task_id, partition=runner.number)
            await self._start(runner, task, stored)

    async def abandon(self, runner: PartitionRunner | None = None) -> None:
        """Stop the tasks of a partition, or all, without a status; whoever owns it next starts them again."""
        drivers = []
        for key, job in list(self._jobs.items()):
            if runner is None or job.runner is runner:
                job.abandoned = True
                job.interrupt.cancel()
                drivers.append(self._drivers[key])
        await asyncio.gather(*drivers, return_exceptions=True)

    # -- one task --------------------------------------------------------------------------------------

    async def _start(self, runner: PartitionRunner, task: TaskRequest, stored: StoredTask) -> None:
        try:
            request = resolve_request(task, self._settings, stored.read_time_us)
        except TaskError as error:
            await self._remember(runner, task.account_id, task.task_id, "failed")
            await self.reject(task.account_id, task.task_id, error.code, error.message)
            return
        deadline_s = task.deadline_s or self._settings.tasks.default_deadline_s
        job = Job(runner, request, stored.barrier, Interrupt(deadline_s))
        self._jobs[job.key] = job
        self._drivers[job.key] = asyncio.create_task(self._drive(job), name=f"task-{task.task_id}")
        runner.at_barrier(job, stored.barrier, lambda: self._reached(job))
        self._count()

    async def _reached(self, job: Job) -> None:
        """At the barrier, between batches: when the task can begin at once, its view is of exactly here."""
        if not self._slots.locked():
            await self._slots.acquire()
            job.has_slot = True
            await self._open_view(job)
        job.at_barrier.set()

    async def _open_view(self, job: Job) -> None:
        partition = job.runner.partition
        view = await job.runner.in_engine(partition.view)
        if self._jobs.get(job.key) is not job:
            # Cancelled or past its deadline meanwhile: nobody else would close it.
            await job.runner.in_engine(view.close)
            return
        job.view = view
        job.as_of = {
            "topic": partition.identity.topic,
            "partition": partition.identity.partition,
            "next_offset": job.runner.next_offset,
        }

    async def _drive(self, job: Job) -> None:
        status: TaskState = "failed"
        result: SnapshotResult | None = None
        fault: TaskFault | None = None
        publisher = asyncio.create_task(self._publish_progress(job))
        try:
            result = await self._perform(job)
            status = "done"
        except Cancelled:
            status = "cancelled"
        except TaskError as error:
            fault = TaskFault(code=error.code, message=error.message)
        except Exception as error:
            _log.exception("task_error", task_id=job.request.task_id, error=str(error))
            fault = TaskFault(code="internal_error", message=f"{type(error).__name__}: {error}")
        finally:
            publisher.cancel()
            await self._release(job)
        if not job.abandoned:
            await self._end(job, status, result, fault)

    async def _perform(self, job: Job) -> SnapshotResult:
        await self._wait(job, job.at_barrier.wait())
        if not job.has_slot:
            await self._wait(job, self._slots.acquire())
            job.has_slot = True
        if job.view is None:
            await job.runner.between_batches(lambda: self._open_view(job))
        assert job.view is not None
        self._count()
        request = job.request
        directory = Path(self._settings.results.directory)
        target = archive_path(directory, request.account_id, request.task_id)

        def progress(stage: str, share: float) -> None:
            job.progress = (stage, share)

        view, as_of = job.view, job.as_of
        return await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: run_snapshot(
                view, request, target, interrupt=job.interrupt, progress=progress, as_of=as_of
            ),
        )

    async def _wait(self, job: Job, awaitable: Any) -> None:
        """Wait for something, noticing a cancel or a passed deadline."""
        waiting = asyncio.ensure_future(awaitable)
        try:
            while not waiting.done():
                job.interrupt.check()
                await asyncio.wait([waiting], timeout=_POLL_S)
        finally:
            waiting.cancel()

    async def _publish_progress(self, job: Job) -> None:
        account_id, task_id = job.key
        while True:
            await asyncio.sleep(self._settings.tasks.progress_interval_s)
            stage, share = job.progress
            await self._statuses.send(_status(account_id, task_id, "in_progress", share, stage=stage))

    async def _release(self, job: Job) -> None:
        job.runner.forget_barrier(job)
        if job.view is not None:
            await asyncio.get_running_loop().run_in_executor(self._threads, job.view.close)
        if job.has_slot:
            self._slots.release()
        del self._jobs[job.key]
        del self._drivers[job.key]
        self._count()

    async def _end(
        self, job: Job, status: TaskState, result: SnapshotResult | None, fault: TaskFault | None
    ) -> None:
        account_id, task_id = job.key
        duration_s = time.monotonic() - job.began
        # First the status, then the note that it was sent: a crash between never leaves a task without its
        # last word, and `resume` finds the word on the results topic.
        message = _status(account_id, task_id, status, job.progress[1], error=fault, duration_s=duration_s)
        if result is not None:
            message = _done(account_id, task_id, result, duration_s)
        try:
            await self._statuses.send(message, give_up=lambda: job.abandoned)
            await self._remember(job.runner, account_id, task_id, status)
        except (StreamClusterError, OSError) as error:
            _log.warning("task_end_not_stored", task_id=task_id, status=status, error=str(error))
            return
        self._metrics.tasks.labels(status).inc()
        self._metrics.task_duration.labels(status).observe(duration_s)
        timings_s = dict(result.timings_s) if result else {}
        _log.info(
            "task_ended",
            task_id=task_id,
            partition=job.runner.number,
            status=status,
            code=fault.code if fault else None,
            duration_s=round(duration_s, 3),
            **{f"{stage}_s": seconds for stage, seconds in timings_s.items()},
        )

    async def _remember(
        self, runner: PartitionRunner, account_id: str, task_id: str, status: TaskState
    ) -> None:
        partition = runner.partition
        await runner.between_batches(
            lambda: runner.in_engine(partition.set_task_status, account_id, task_id, status)
        )

    def _count(self) -> None:
        running = sum(job.view is not None for job in self._jobs.values())
        self._metrics.tasks_running.set(running)
        self._metrics.tasks_waiting.set(len(self._jobs) - running)


def _status(account_id: str, task_id: str, status: TaskState, progress: float, **more: Any) -> TaskStatus:
    return TaskStatus(
        task_id=task_id, account_id=account_id, status=status, progress=progress, time=now_text(), **more
    )


def _done(account_id: str, task_id: str, result: SnapshotResult, duration_s: float) -> TaskStatus:
    archive = result.archive
    return _status(
        account_id,
        task_id,
        "done",
        1.0,
        archive=ArchiveRef(
            url=archive.path.resolve().as_uri(), size_bytes=archive.size_bytes, sha256=archive.sha256
        ),
        objects=result.objects,
        clusters=result.clusters,
        largest_cluster=result.largest_cluster,
        threshold=result.threshold,
        as_of=AsOf(**result.as_of) if result.as_of else None,
        duration_s=round(duration_s, 3),
        timings_s=dict(result.timings_s),
    )
