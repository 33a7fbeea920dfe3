"""The sender's side of tasks: requests to the task topic, statuses back from the results topic."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from stream_cluster.config import Settings
from stream_cluster.errors import BrokerUnavailable
from stream_cluster.messages import (
    AnyTask,
    TaskRequest,
    TaskStatus,
    decode_status,
    encode_task,
)
from stream_cluster.service.ingest import raw_record
from stream_cluster.service.kafka import make_consumer, make_producer, partition_count, start_client

OnStatus = Callable[[TaskStatus], None]
"""Called with each status of the task, in order."""
IsLast = Callable[[TaskStatus], bool]
"""Whether a status is the one that was waited for."""

_HEADERS = [("content-type", b"application/json")]
_POLL_MS = 200
_TOPIC_TIMEOUT_S = 3.0


def has_ended(status: TaskStatus) -> bool:
    """An `IsLast`: the task goes on no more."""
    return status.ended


def is_deleted(status: TaskStatus) -> bool:
    """An `IsLast`: the answer to a request to delete."""
    is_unknown = status.error is not None and status.error.code == "unknown_task"
    return status.archive_removed is not None or is_unknown


def _ignore(status: TaskStatus) -> None:
    """An `OnStatus` that does nothing."""


class TaskClient:
    """Sends requests and follows tasks. An asynchronous context manager; one call at a time.

        async with TaskClient(settings) as client:
            status = await client.submit(task)

    A status that has not ended, or None, means that the time ran out.
    """

    def __init__(self, settings: Settings) -> None:
        self._kafka = settings.kafka
        self._producer: AIOKafkaProducer
        self._consumer: AIOKafkaConsumer
        self._partitions: list[TopicPartition] = []
        self._clients = contextlib.AsyncExitStack()

    async def __aenter__(self) -> TaskClient:
        """Connect.

        Raises:
            BrokerUnavailable: no broker answered within `kafka.connect_timeout_s`.
            ConfigError: there is no task or results topic.
        """
        async with contextlib.AsyncExitStack() as starting:
            self._producer = await start_client(make_producer(self._kafka), self._kafka)
            starting.push_async_callback(self._producer.stop)
            consumer = make_consumer(self._kafka, group=False)
            self._consumer = await start_client(consumer, self._kafka)
            starting.push_async_callback(self._consumer.stop)
            with _explained("cannot read the topics"):
                # Asked for first, so that a missing topic is an error and not a wait.
                await partition_count(self._producer, self._kafka.tasks_topic, timeout_s=2.0)
                count = await partition_count(self._producer, self._kafka.results_topic, timeout_s=2.0)
                topic = self._kafka.results_topic
                self._partitions = [TopicPartition(topic, number) for number in range(count)]
                self._consumer.assign(self._partitions)
            self._clients = starting.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._clients.aclose()

    async def send(self, task: AnyTask) -> None:
        """Send a request; return once the brokers have it.

        Raises:
            BrokerUnavailable: they did not acknowledge it.
        """
        topic = self._kafka.tasks_topic
        with _explained(f"topic {topic}"):
            await self._producer.send_and_wait(
                topic, encode_task(task), key=task.account_id.encode(), headers=_HEADERS
            )

    async def submit(
        self, task: TaskRequest, *, on_status: OnStatus = _ignore, timeout_s: float | None = None
    ) -> TaskStatus | None:
        """Send a task with a new id and follow it to its end. Returns its last status."""
        # The end is fixed before the task is sent, so none of its statuses can be missed.
        await self._seek(await self._ends())
        await self.send(task)
        return await self._follow((task.account_id, task.task_id), None, on_status, timeout_s, has_ended)

    async def watch(
        self,
        account_id: str,
        task_id: str,
        *,
        on_status: OnStatus = _ignore,
        timeout_s: float | None = None,
        is_last: IsLast = has_ended,
    ) -> TaskStatus | None:
        """Follow a task that may have begun, or ended, before. Reads the results topic from its start.

        Of the past, only the latest status is told.
        """
        ends = await self._ends()
        await self._seek(await self._beginnings())
        return await self._follow((account_id, task_id), ends, on_status, timeout_s, is_last)

    async def latest(self, account_id: str | None = None) -> list[TaskStatus]:
        """The latest status of every task of an account, or of all, that the results topic still holds.

        In the order of the tasks' first statuses.
        """
        ends = await self._ends()
        await self._seek(await self._beginnings())
        latest: dict[tuple[str, str], TaskStatus] = {}
        async for found in self._statuses(lambda status: account_id in {None, status.account_id}, None):
            latest |= {(status.account_id, status.task_id): status for status in found}
            if await self._reached(ends):
                break
        return list(latest.values())

    async def _follow(
        self,
        wanted: tuple[str, str],
        past_ends: dict[TopicPartition, int] | None,
        on_status: OnStatus,
        timeout_s: float | None,
        is_last: IsLast,
    ) -> TaskStatus | None:
        """Read to the end of the task; of what lies before `past_ends`, only the latest status is told."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        in_past = past_ends is not None
        latest: TaskStatus | None = None
        async for found in self._statuses(
            lambda status: (status.account_id, status.task_id) == wanted, deadline
        ):
            for status in found:
                latest = status
                if not in_past:
                    on_status(status)
            if in_past and past_ends is not None and await self._reached(past_ends):
                in_past = False
                if latest is not None:
                    on_status(latest)
            if latest is not None and is_last(latest) and not in_past:
                break
        return latest

    async def _statuses(
        self, is_wanted: Callable[[TaskStatus], bool], deadline: float | None
    ) -> AsyncIterator[list[TaskStatus]]:
        """What each fetch holds of the wanted statuses, until the deadline."""
        while deadline is None or time.monotonic() < deadline:
            with _explained(f"topic {self._kafka.results_topic}"):
                fetched = await self._consumer.getmany(timeout_ms=_POLL_MS)
            found = []
            for record in (record for records in fetched.values() for record in records):
                raw = raw_record(record)
                status = None if raw.value is None else decode_status(raw.value, raw.content_type)
                if isinstance(status, TaskStatus) and is_wanted(status):
                    found.append(status)
            yield found

    async def _ends(self) -> dict[TopicPartition, int]:
        with _explained(f"topic {self._kafka.results_topic}"):
            return dict(await self._consumer.end_offsets(self._partitions))

    async def _beginnings(self) -> dict[TopicPartition, int]:
        with _explained(f"topic {self._kafka.results_topic}"):
            return dict(await self._consumer.beginning_offsets(self._partitions))

    async def _seek(self, offsets: dict[TopicPartition, int]) -> None:
        for partition, next_offset in offsets.items():
            self._consumer.seek(partition, next_offset)

    async def _reached(self, ends: dict[TopicPartition, int]) -> bool:
        for partition, end in ends.items():
            if await self._consumer.position(partition) < end:
                return False
        return True


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Kafka's errors as `BrokerUnavailable` that says what was tried."""
    try:
        yield
    except KafkaError as error:
        raise BrokerUnavailable(f"{what}: {error!r}") from error
