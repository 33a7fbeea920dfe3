"""What a user of the topics does: send objects and tasks, follow statuses."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import RecordMetadata

from stream_cluster.generate import GeneratedRecord
from stream_cluster.messages import partition_for
from stream_cluster.sandbox import Broker
from tests.support.archives import Archive, read_archive
from tests.support.kafka import MAX_REQUEST_BYTES, eventually
from tests.support.service import Topics

Status = dict[str, Any]
ENDED = {"done", "failed", "cancelled"}


def clustering(task_id: str, account_id: str = "demo", **content: Any) -> dict[str, Any]:
    """A task message. `content` are fields of its `content`."""
    fields = {"objects_type": "events", **content}
    return {"task_id": task_id, "account_id": account_id, "type": "clustering", "content": fields}


class Client:
    """Producer for a test's topics, and a reader of all statuses since the topic's beginning."""

    def __init__(self, topics: Topics, producer: AIOKafkaProducer) -> None:
        self.topics = topics
        self.producer = producer
        self._statuses: dict[tuple[str, str], list[Status]] = defaultdict(list)

    async def produce(self, records: Iterable[GeneratedRecord]) -> list[RecordMetadata]:
        """Send generated records; return where they went, in order, once the broker has them."""
        sent = []
        for record in records:
            partition = None
            if record.partition_offset:
                right = partition_for(record.key.decode(), self.topics.partitions, "murmur2")
                partition = (right + record.partition_offset) % self.topics.partitions
            headers = [("content-type", record.content_type.encode())]
            sent.append(
                await self.producer.send(
                    self.topics.events, record.value, key=record.key, headers=headers, partition=partition
                )
            )
        return list(await asyncio.gather(*sent))

    async def produce_lines(self, account_id: str, values: Iterable[bytes]) -> None:
        """Send JSON messages of one account."""
        sent = [
            await self.producer.send(self.topics.events, value, key=account_id.encode()) for value in values
        ]
        await asyncio.gather(*sent)

    async def submit(self, *tasks: dict[str, Any], packed: bool = False) -> None:
        """Send task messages as JSON, or as MessagePack."""
        for task in tasks:
            value = msgspec.msgpack.encode(task) if packed else json.dumps(task).encode()
            await self.submit_bytes(str(task["account_id"]), value)

    async def submit_bytes(self, account_id: str, value: bytes) -> None:
        """Send a record to the task topic."""
        await self.producer.send_and_wait(self.topics.tasks, value, key=account_id.encode())

    def statuses(self, task_id: str, account_id: str = "demo") -> list[Status]:
        """All statuses of a task so far, in order."""
        return list(self._statuses[account_id, task_id])

    async def reached(
        self, state: str, task_id: str, account_id: str = "demo", timeout_s: float = 30
    ) -> None:
        """Return when the task has had a status."""
        await eventually(
            lambda: any(status["status"] == state for status in self.statuses(task_id, account_id)),
            timeout_s,
            f"status {state} of task {task_id}; there are {self.statuses(task_id, account_id)}",
        )

    async def until_stage(
        self, stage: str, task_id: str, account_id: str = "demo", timeout_s: float = 30
    ) -> None:
        """Return when a progress message has named that stage."""
        await eventually(
            lambda: any(status["stage"] == stage for status in self.statuses(task_id, account_id)),
            timeout_s,
            f"stage {stage} of task {task_id}",
        )

    async def ended(self, task_id: str, account_id: str = "demo", timeout_s: float = 30) -> Status:
        """The last status of a task."""
        await eventually(
            lambda: any(status["status"] in ENDED for status in self.statuses(task_id, account_id)),
            timeout_s,
            f"the end of task {task_id} of {account_id}",
        )
        return next(s for s in self.statuses(task_id, account_id) if s["status"] in ENDED)

    async def archive(self, task_id: str, account_id: str = "demo", timeout_s: float = 30) -> Archive:
        """The archive of a task that must end well; its size and hash are as the status says."""
        status = await self.ended(task_id, account_id, timeout_s)
        assert status["status"] == "done", status
        return read_archive(archive_file(status), status)

    async def follow(self, consumer: AIOKafkaConsumer) -> None:
        """Collect statuses until cancelled."""
        async for record in consumer:
            status = json.loads(record.value)
            assert record.key == status["account_id"].encode()
            self._statuses[status["account_id"], status["task_id"]].append(status)


def archive_file(status: Status) -> Path:
    """The path behind the archive's URL."""
    url = urlsplit(status["archive"]["url"])
    assert url.scheme == "file"
    return Path(unquote(url.path))


@asynccontextmanager
async def client_of(
    broker: Broker, topics: Topics, *, compression: str | None = None, batch_bytes: int = 256 * 1024
) -> AsyncIterator[Client]:
    """A client whose topics exist; `compression` as aiokafka names it, of batches of `batch_bytes`."""
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap_servers,
        acks="all",
        linger_ms=2,
        max_request_size=MAX_REQUEST_BYTES,
        max_batch_size=batch_bytes,
        compression_type=compression,
    )
    consumer = AIOKafkaConsumer(
        topics.results,
        bootstrap_servers=broker.bootstrap_servers,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
        isolation_level="read_committed",
    )
    await producer.start()
    await consumer.start()
    client = Client(topics, producer)
    following = asyncio.create_task(client.follow(consumer))
    try:
        yield client
        assert not following.done(), following
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await consumer.stop()
        await producer.stop()
