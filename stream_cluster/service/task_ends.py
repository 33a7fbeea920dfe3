"""The end of a task: its last status, the note of it in the state, and what is owed afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Literal

from stream_cluster.config import Settings
from stream_cluster.errors import Cancelled
from stream_cluster.messages import TaskRequest, TaskStatus, encode_status, format_time, parse_time
from stream_cluster.messages.times import MAX_TIME_US
from stream_cluster.service.callbacks import Callbacks
from stream_cluster.service.ingest import PartitionRunner
from stream_cluster.state import tasks as stored_tasks
from stream_cluster.state.tasks import StoredTask, TaskEnd

# How soon a held end notices that it is given up.
_POLL_S = 0.1


class TaskEnds:
    """Lets ends be told when they may be, stores them and sets off their callbacks."""

    def __init__(self, settings: Settings, callbacks: Callbacks) -> None:
        self._settings = settings
        self._callbacks = callbacks
        self._may_begin = asyncio.Event()
        self._may_begin.set()
        self._under_way = 0
        self._none_is = asyncio.Event()
        """Set while none is under way."""
        self._none_is.set()

    @contextlib.asynccontextmanager
    async def saying(self, give_up: Callable[[], bool]) -> AsyncIterator[None]:
        """A block that tells and stores an end. It begins when no rebalance is under way.

        Raises:
            Cancelled: `give_up` said so first.
        """
        while not self._may_begin.is_set() and not give_up():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await self._may_begin.wait()
        if give_up():
            raise Cancelled("the partition is no longer ours")
        self._under_way += 1
        self._none_is.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._none_is.set()

    async def hold(self, timeout_s: float) -> None:
        """Let no block begin until `release`; return when none is under way, or the time is up."""
        self._may_begin.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._none_is.wait()

    def release(self) -> None:
        """Let blocks begin again."""
        self._may_begin.set()

    def expires(self, task: TaskRequest, now_us: int) -> str | None:
        """When an archive that is stored now is removed, as statuses carry it. None: it is kept."""
        ttl_s = task.result_ttl_s if task.result_ttl_s is not None else self._settings.results.ttl_s
        if ttl_s is None or now_us + ttl_s * 1_000_000 > MAX_TIME_US:
            return None
        return format_time((now_us // 1000 + ttl_s * 1000) * 1000)

    async def store(self, runner: PartitionRunner, task: TaskRequest, status: TaskStatus) -> bool:
        """Make the end durable once its status has been sent; then call back.

        Returns whether a request to delete the task waits for its end.
        """
        url = task.callback_url
        is_owed = url is not None and self._callbacks.problem(url) is None
        end = _end(status, callback="due" if is_owed else None)
        to_delete = await runner.between_batches(
            lambda: runner.in_engine(
                runner.partition.change_tasks, stored_tasks.end_task, task.account_id, task.task_id, end
            )
        )
        if is_owed and url is not None:
            self._callbacks.owe(runner, task.account_id, task.task_id, url, end.last_status)
        return bool(to_delete)


def ended_before(stored: StoredTask, status: TaskStatus) -> StoredTask:
    """A task as it is stored when the results topic says that it has ended already.

    Its callback was the business of the worker that ended it.
    """
    return dataclasses.replace(stored, **dataclasses.asdict(_end(status, callback=None)))


def _end(status: TaskStatus, callback: Literal["due"] | None) -> TaskEnd:
    return TaskEnd(
        status=status.status,
        ended_us=parse_time(status.time),
        last_status=encode_status(status),
        archive=status.archive_removed or (None if status.archive is None else "kept"),
        expires_us=None if status.expires is None else parse_time(status.expires),
        callback=callback,
    )
