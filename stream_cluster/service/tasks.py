"""Tasks: from a message on the task topic to an archive and its last status.

A task is stored with its barrier (the end of its partition's log when it was read), waits until ingest has
reached the barrier and a slot is free, takes a view of the state, and runs in a thread beside ingest. Then
its archive goes to the result store. A task that was under way when the process ended is found in the state
and starts again; what it stored is written over.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from weakref import WeakSet

from stream_cluster.config import Settings
from stream_cluster.errors import (
    Cancelled,
    ResultsUnavailable,
    StateCorrupt,
    StreamClusterError,
    TaskError,
    TaskErrorCode,
)
from stream_cluster.faults import fault_point
from stream_cluster.messages import (
    TaskFault,
    TaskRequest,
    TaskStatus,
    decode_task,
    encode_task,
)
from stream_cluster.model import Interrupt
from stream_cluster.service.callbacks import Callbacks
from stream_cluster.service.clock import now_us
from stream_cluster.service.fair_slots import FairSlots
from stream_cluster.service.ingest import PartitionRunner
from stream_cluster.service.job import Job, done_status
from stream_cluster.service.logs import get_logger
from stream_cluster.service.metrics import Metrics
from stream_cluster.service.removals import Removals
from stream_cluster.service.result_store import ResultStore
from stream_cluster.service.statuses import Statuses, make_status
from stream_cluster.service.task_ends import TaskEnds, ended_before
from stream_cluster.service.task_history import ReadEnded
from stream_cluster.service.threads import until
from stream_cluster.service.uploads import Uploads
from stream_cluster.snapshot.request import resolve_request
from stream_cluster.snapshot.run import SnapshotResult, run_snapshot
from stream_cluster.state import tasks as stored_tasks
from stream_cluster.state.tasks import Asked, Removal, StoredTask, TaskState

_log = get_logger(__name__)
# Share of the progress that is left for sending the archive to a bucket.
_UPLOAD_SHARE = 0.1


class Tasks:
    """Runs the tasks of all partitions that this worker owns."""

    def __init__(
        self,
        settings: Settings,
        statuses: Statuses,
        metrics: Metrics,
        threads: Executor,
        read_ended: ReadEnded,
        *,
        store: ResultStore,
        removals: Removals,
        callbacks: Callbacks,
    ) -> None:
        """`threads` run the snapshots; `read_ended` tells what became of tasks that look unfinished."""
        self._settings = settings
        self._statuses = statuses
        self._metrics = metrics
        self._threads = threads
        self._read_ended = read_ended
        self._store = store
        self._removals = removals
        self._callbacks = callbacks
        self._ends = TaskEnds(settings, callbacks)
        self._slots: FairSlots[tuple[str, str]] = FairSlots(settings.tasks.concurrency)
        self._jobs: dict[tuple[str, str], Job] = {}
        self._drivers: dict[Job, asyncio.Task[None]] = {}
        """Until the end is stored: also of those that are not in `_jobs` any more."""
        self._given_up: WeakSet[PartitionRunner] = WeakSet()
        self._uploads = Uploads(store)

    @property
    def jobs(self) -> list[Job]:
        """Tasks that have not ended."""
        return list(self._jobs.values())

    # -- from the task topic ---------------------------------------------------------------------------

    async def accept(
        self,
        runner: PartitionRunner,
        task: TaskRequest,
        barrier: int,
        offsets: Mapping[tuple[str, int], int],
        ended: TaskStatus | None = None,
    ) -> None:
        """Make a new task durable together with the task topic's offsets, then start it.

        One that has `ended` in an earlier life is only remembered. A task id that the account used before is
        the same task: nothing happens.
        """
        stored = StoredTask(task.account_id, task.task_id, "pending", encode_task(task), now_us(), barrier)
        if ended is not None:
            stored = ended_before(stored, ended)
        is_new = await runner.between_batches(
            lambda: runner.in_engine(runner.partition.add_task, stored, dict(offsets))
        )
        if is_new and ended is None:
            _log.info("task_read", task_id=task.task_id, partition=runner.number, barrier=barrier)
            pending = make_status(task.account_id, task.task_id, "pending", 0.0)
            await self._statuses.send(pending, runner.outputs)
            await self._start(runner, task, stored)

    async def reject(
        self, runner: PartitionRunner, account_id: str, task_id: str, code: TaskErrorCode, message: str
    ) -> TaskStatus:
        """Answer a task that cannot be served; returns the answer."""
        _log.info("task_ended", task_id=task_id, partition=runner.number, status="failed", code=code)
        self._metrics.tasks.labels("failed").inc()
        fault = TaskFault(code=code, message=message)
        status = make_status(account_id, task_id, "failed", 0.0, error=fault)
        await self._statuses.send(status, runner.outputs)
        return status

    async def cancel(
        self,
        runner: PartitionRunner,
        account_id: str,
        task_id: str,
        offsets: Mapping[tuple[str, int], int],
    ) -> None:
        """Ask a task to stop; one that has ended or was never read stays as it is."""
        await self._ask(runner, account_id, task_id, "cancel", offsets)

    async def delete(
        self,
        runner: PartitionRunner,
        account_id: str,
        task_id: str,
        offsets: Mapping[tuple[str, int], int],
    ) -> None:
        """Stop a task and have its archive removed; a status says when it is gone."""
        found = await self._ask(runner, account_id, task_id, "delete", offsets)
        if found is None:
            message = f"the account has no task {task_id}"
            await self.reject(runner, account_id, task_id, "unknown_task", message)
        elif found.archive in {"deleted", "expired"}:
            removal: Removal = "deleted" if found.archive == "deleted" else "expired"
            await self._removals.say_again(runner, found, removal)
        else:
            self._removals.wake()

    async def _ask(
        self,
        runner: PartitionRunner,
        account_id: str,
        task_id: str,
        asked: Asked,
        offsets: Mapping[tuple[str, int], int],
    ) -> StoredTask | None:
        """Note a request together with the task topic's offsets, then tell the task if it is under way."""
        change = functools.partial(
            runner.partition.change_tasks, stored_tasks.ask, account_id, task_id, asked, offsets=dict(offsets)
        )
        found = await runner.between_batches(lambda: runner.in_engine(change))
        job = self._jobs.get((account_id, task_id))
        if job is not None:
            job.interrupt.cancel()
        return found

    # -- with partitions -------------------------------------------------------------------------------

    async def resume(self, runner: PartitionRunner) -> None:
        """Start the tasks that a partition's state still has to do."""
        await self._callbacks.resume(runner)
        unfinished = await runner.in_engine(runner.partition.unfinished_tasks)
        ended = await self._read_ended() if unfinished else {}
        for stored in unfinished:
            task = decode_task(stored.request)
            if not isinstance(task, TaskRequest):
                raise StreamClusterError(f"stored task {stored.task_id}: {task}")
            if status := ended.get((stored.account_id, stored.task_id)):
                await self._store_end(runner, task, status)
                continue
            _log.info("task_resumed", task_id=stored.task_id, partition=runner.number)
            await self._start(runner, task, stored)

    def give_up(self, runner: PartitionRunner | None = None) -> None:
        """From now on no task of a partition, or none at all, ends or begins here; whoever owns the partition
        next starts it again."""
        if runner is not None:
            # A task that was read a moment ago, and not started yet, must not start here any more.
            self._given_up.add(runner)
        for job in self._drivers:
            if runner in {None, job.runner}:
                job.abandoned = True
                job.interrupt.cancel()

    async def abandon(self, runner: PartitionRunner | None = None) -> None:
        """`give_up`, and return when all that was under way is over."""
        self.give_up(runner)
        drivers = [driver for job, driver in self._drivers.items() if runner in {None, job.runner}]
        await asyncio.gather(*drivers, return_exceptions=True)
        await self._callbacks.abandon(runner)

    async def hold_ends(self, timeout_s: float) -> None:
        """Before a rebalance: no task of this worker ends until `release_ends`, and those at it are through.

        Whoever gets a partition looks for the last words of its tasks once it has it. One that is said later
        would be a second one.
        """
        await self._ends.hold(timeout_s)

    def release_ends(self) -> None:
        """After a rebalance, when the partitions that were lost are given up."""
        self._ends.release()

    # -- one task --------------------------------------------------------------------------------------

    async def _start(self, runner: PartitionRunner, task: TaskRequest, stored: StoredTask) -> None:
        """Raises Cancelled: the partition was given up."""
        if runner in self._given_up:
            raise Cancelled(f"partition {runner.number} is no longer ours")
        try:
            if problem := self._callbacks.problem(task.callback_url):
                raise TaskError("bad_request", problem)
            request = resolve_request(task, self._settings, stored.read_time_us)
        except TaskError as error:
            status = await self.reject(runner, task.account_id, task.task_id, error.code, error.message)
            await self._store_end(runner, task, status)
            return
        deadline_s = task.deadline_s or self._settings.tasks.default_deadline_s
        elapsed_s = max(0.0, (now_us() - stored.read_time_us) / 1e6)
        interrupt = Interrupt(deadline_s, elapsed_s=elapsed_s)
        job = Job(runner, task, request, interrupt, time.monotonic() - elapsed_s, stored.barrier)
        if stored.asked is not None:
            # Asked for in an earlier life, which ended before the task did.
            interrupt.cancel()
        self._jobs[job.key] = job
        self._drivers[job] = asyncio.create_task(self._drive(job), name=f"task-{task.task_id}")
        runner.at_barrier(job, stored.barrier, lambda: self._reached(job))
        self._count()

    async def _reached(self, job: Job) -> None:
        """At the barrier, between batches: when the task can begin at once, its view is of exactly here."""
        if self._jobs.get(job.key) is not job:
            return  # it ended while it waited
        if self._slots.take(job.request.account_id, job.key):
            job.has_slot.set()
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
        except ResultsUnavailable as error:
            _log.warning("archive_not_stored", **job.about, error=str(error))
            fault = TaskFault(code="result_store_unavailable", message=str(error))
        except StateCorrupt as error:
            # Going on would answer from damaged data. The task has no end: it starts again when the state
            # is mended.
            job.abandoned = True
            job.runner.fail(error)
        except Exception as error:
            _log.exception("task_error", **job.about, error=str(error))
            fault = TaskFault(code="internal_error", message=f"{type(error).__name__}: {error}")
        finally:
            publisher.cancel()
            await self._release(job)
        try:
            if not job.abandoned:
                await self._end(job, status, result, fault)
        finally:
            del self._drivers[job]

    async def _perform(self, job: Job) -> SnapshotResult:
        await until(job.interrupt, job.at_barrier.wait())
        await until(job.interrupt, job.has_slot.wait())
        if job.view is None:
            await job.runner.between_batches(lambda: self._open_view(job))
        assert job.view is not None
        self._count()
        request, view, as_of = job.request, job.view, job.as_of
        scale = 1 - _UPLOAD_SHARE if self._store.uploads else 1.0

        def progress(stage: str, share: float) -> None:
            job.progress = (stage, share * scale)

        def snapshot() -> SnapshotResult:
            file = self._store.begin(job.name)
            return run_snapshot(view, request, file, interrupt=job.interrupt, progress=progress, as_of=as_of)

        result = await asyncio.get_running_loop().run_in_executor(self._threads, snapshot)
        await self._upload(job, result)
        return result

    async def _upload(self, job: Job, result: SnapshotResult) -> None:
        def progress(stage: str, share: float) -> None:
            job.progress = (stage, 1 - _UPLOAD_SHARE + _UPLOAD_SHARE * share)

        await job.runner.outputs.until_owned(lambda: job.abandoned)
        if self._store.uploads:
            progress("upload", 0.0)
        job.result_url = await self._uploads.put(
            job.name, result.archive.path, job.interrupt, progress, lambda: job.abandoned, about=job.about
        )

    async def _publish_progress(self, job: Job) -> None:
        account_id, task_id = job.key
        while True:
            await asyncio.sleep(self._settings.tasks.progress_interval_s)
            stage, share = job.progress
            to_go = max(0, job.barrier - job.runner.next_offset) if stage == "wait" else None
            status = make_status(
                account_id, task_id, "in_progress", share, stage=stage, records_to_barrier=to_go
            )
            try:
                await self._statuses.send(status, job.runner.outputs)
            except Cancelled:
                return  # the partition goes away, and the task with it

    async def _release(self, job: Job) -> None:
        job.runner.forget_barrier(job)
        if job.view is not None:
            await asyncio.get_running_loop().run_in_executor(self._threads, job.view.close)
        successor = self._slots.leave(job.key)
        if successor is not None:
            self._jobs[successor].has_slot.set()
        del self._jobs[job.key]
        self._count()

    async def _end(
        self, job: Job, status: TaskState, result: SnapshotResult | None, fault: TaskFault | None
    ) -> None:
        account_id, task_id = job.key
        # First the status, then the note that it was sent: a crash between never leaves a task without its
        # last word, and `resume` finds the word on the results topic.
        try:
            async with self._ends.saying(lambda: job.abandoned):
                duration_s = time.monotonic() - job.began
                if result is None:
                    share = job.progress[1]
                    message = make_status(
                        account_id, task_id, status, share, error=fault, duration_s=duration_s
                    )
                else:
                    url, expires = self._store.url(job.name), self._ends.expires(job.task, now_us())
                    message = done_status(job, result, url=url, expires=expires, duration_s=duration_s)
                await self._statuses.send(message, job.runner.outputs, give_up=lambda: job.abandoned)
                # It has ended for everybody, whatever becomes of the note: whoever reads of this end does
                # not count it again.
                self._count_end(job, message, duration_s, result)
                fault_point("status_noted")
                await self._store_end(job.runner, job.task, message)
        except (StreamClusterError, OSError) as error:
            _log.warning("task_end_not_stored", **job.about, status=status, error=str(error))

    def _count_end(
        self, job: Job, message: TaskStatus, duration_s: float, result: SnapshotResult | None
    ) -> None:
        status = message.status
        self._metrics.tasks.labels(status).inc()
        self._metrics.task_duration.labels(status).observe(duration_s)
        if result is not None:
            self._metrics.observe_largest_cluster(
                job.request.descriptor_type, result.objects, result.largest_cluster
            )
        timings_s = dict(result.timings_s) if result else {}
        _log.info(
            "task_ended",
            **job.about,
            status=status,
            code=message.error.code if message.error else None,
            duration_s=round(duration_s, 3),
            **{f"{stage}_s": seconds for stage, seconds in timings_s.items()},
        )

    async def _store_end(self, runner: PartitionRunner, task: TaskRequest, status: TaskStatus) -> None:
        if await self._ends.store(runner, task, status):
            self._removals.wake()

    def _count(self) -> None:
        running = sum(job.view is not None for job in self._jobs.values())
        self._metrics.tasks_running.set(running)
        self._metrics.tasks_waiting.set(len(self._jobs) - running)
