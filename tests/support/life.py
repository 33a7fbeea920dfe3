"""Tasks of a real partition, with everything around them but Kafka: statuses are kept in a list."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stream_cluster.config import Settings, load_settings
from stream_cluster.messages import Content, TaskRequest, TaskStatus
from stream_cluster.service.callbacks import Callbacks
from stream_cluster.service.ingest import IngestContext, PartitionRunner
from stream_cluster.service.metrics import Metrics
from stream_cluster.service.removals import Removals
from stream_cluster.service.result_store import make_store
from stream_cluster.service.tasks import Tasks
from stream_cluster.service.upkeep import UpkeepSettings
from stream_cluster.state import tasks as stored_tasks
from tests.support.kafka import eventually
from tests.support.partitions import message, open_partition, records, vectors


class KeptStatuses:
    """Instead of the results topic. `lost` are dropped on the way, as if the process had died before."""

    def __init__(self) -> None:
        self.sent: list[TaskStatus] = []

    async def send(self, status: TaskStatus, outputs: Any, **_: Any) -> None:
        await asyncio.sleep(0)
        self.sent.append(status)


class OwnOutputs:
    """Of a partition that nobody takes over; writes with `producer`, which may be a fake."""

    def __init__(self, producer: Any = None) -> None:
        self._producer = producer

    async def take_over(self) -> None:
        """Nobody is there."""

    async def write(self, send: Any, topic: str, *, give_up: Any) -> Any:
        return await send(self._producer)

    async def is_owner(self) -> bool:
        return True

    async def until_owned(self, give_up: Any) -> None:
        """At once."""

    def leave(self) -> None:
        """Nothing is waited for."""

    async def close(self) -> None:
        """Nothing is open."""


class Life:
    """One life of a worker; a second one on the same folder is a restart."""

    def __init__(self, folder: Path, statuses: KeptStatuses | None = None, **changes: Any) -> None:
        overrides = {
            "results.directory": str(folder / "results"),
            "state.directory": str(folder),
            "tasks.progress_interval_s": 0.05,
            "results.sweep_interval_s": 0.1,
            **{name.replace("__", "."): value for name, value in changes.items()},
        }
        self.settings: Settings = load_settings(None, {}, overrides)
        self.folder = folder
        self.statuses = statuses or KeptStatuses()
        self.metrics = Metrics()
        self.store = make_store(self.settings)
        self.threads = ThreadPoolExecutor(8)
        self.ended: dict[tuple[str, str], TaskStatus] = {}
        self.failures: list[BaseException] = []

    async def __aenter__(self) -> Life:
        self.store.check()
        self.partition = open_partition(self.folder)
        context = IngestContext(self.settings.ingest, self.threads, None, self.metrics, UpkeepSettings())
        outputs = OwnOutputs()
        self.runner = PartitionRunner(self.partition, context, self.failures.append, outputs=outputs)

        async def read_ended() -> dict[tuple[str, str], TaskStatus]:
            return self.ended

        self.removals = Removals(self.settings, self.store, self.statuses, self.metrics)
        self.callbacks = Callbacks(self.settings.callbacks, self.metrics)
        self.tasks = Tasks(
            self.settings,
            self.statuses,
            self.metrics,
            self.threads,
            read_ended,
            store=self.store,
            removals=self.removals,
            callbacks=self.callbacks,
        )
        await self.tasks.resume(self.runner)
        self._sweeping = asyncio.create_task(self.removals.run({0: self.runner}))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()
        assert not self.failures
        assert not self._sweeping.done() or self._sweeping.cancelled(), self._sweeping.exception()

    async def die(self) -> None:
        """End as a worker does: no task gets a status."""
        await self.tasks.abandon()
        self._sweeping.cancel()
        await asyncio.gather(self._sweeping, return_exceptions=True)
        await self.runner.stop()
        self.threads.shutdown()

    async def submit(self, task_id: str = "t", account: str = "acme", barrier: int = 0, **more: Any) -> None:
        """Read a task from the topic. `content` is in `more`."""
        content = Content(objects_type="events", **more.pop("content", {}))
        task = TaskRequest(task_id=task_id, account_id=account, content=content, **more)
        await self.tasks.accept(self.runner, task, barrier, {})

    async def cancel(self, task_id: str = "t", account: str = "acme") -> None:
        await self.tasks.cancel(self.runner, account, task_id, {})

    async def delete(self, task_id: str = "t", account: str = "acme") -> None:
        await self.tasks.delete(self.runner, account, task_id, {})

    def of(self, task_id: str = "t") -> list[TaskStatus]:
        """All statuses of a task."""
        return [status for status in self.statuses.sent if status.task_id == task_id]

    async def until(self, wanted: Any, task_id: str = "t", timeout_s: float = 10) -> TaskStatus:
        """The first status that `wanted` (a status's name, or a function) fits."""
        fits = wanted if callable(wanted) else lambda status: status.status == wanted
        await eventually(
            lambda: any(map(fits, self.of(task_id))), timeout_s, f"{wanted}; there are {self.of(task_id)}"
        )
        return next(filter(fits, self.of(task_id)))

    async def has_ended(self, task_id: str = "t", timeout_s: float = 10) -> TaskStatus:
        """The last status of a task that has ended, once that is stored."""
        status = await self.until(lambda status: status.ended, task_id, timeout_s)
        await eventually(lambda: self.row(task_id).ended_us is not None, 5, "the end to be stored")
        return status

    async def execute(self, sql: str) -> None:
        """Change the state behind the worker's back."""
        await self.runner.between_batches(
            lambda: self.runner.in_engine(
                self.partition.change_tasks, lambda connection: connection.execute(sql).rowcount
            )
        )

    def row(self, task_id: str = "t", account: str = "acme") -> Any:
        """The task in the state, None when it is not there."""
        with self.partition.view() as view:
            rows = view.query(
                f"{stored_tasks._SELECT} WHERE account_id = ? AND task_id = ?", (account, task_id)
            )
            row = next(rows, None)
        return None if row is None else stored_tasks.StoredTask(*row)


def fill(folder: Path, *, count: int = 300, accounts: tuple[str, ...] = ("acme",)) -> None:
    """Objects of some accounts in the partition of a folder."""
    partition = open_partition(folder)
    messages = [
        message(number, vector, account=accounts[number % len(accounts)])
        for number, vector in enumerate(vectors(count))
    ]
    partition.apply(records(messages))
    partition.close()


def seconds_since(began: float) -> float:
    """Of the monotonic clock."""
    return time.monotonic() - began
