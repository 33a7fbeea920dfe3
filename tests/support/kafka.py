"""Short ways to fill, read and prepare topics of a broker in tests."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import ConsumerRecord, RecordMetadata

Headers = Sequence[tuple[str, bytes]]
Record = tuple[bytes | None, bytes | None, Headers]
"""Key, value, headers."""

MAX_REQUEST_BYTES = 16 * 1024 * 1024


async def create_topics(
    bootstrap_servers: str,
    partitions: Mapping[str, int],
    configs: Mapping[str, str] | None = None,
    *,
    replication_factor: int = 1,
) -> None:
    """Create topics (name to number of partitions) and wait until each partition has a leader."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        new = [
            NewTopic(name, count, replication_factor, topic_configs=dict(configs or {}))
            for name, count in partitions.items()
        ]
        response = await admin.create_topics(new)
        failed = [error for error in response.topic_errors if error[1] != 0]
        assert not failed, f"topics were not created: {failed}"

        async def has_leaders() -> bool:
            described = await admin.describe_topics(list(partitions))
            led = {
                topic["topic"]: sum(1 for part in topic["partitions"] if part["leader"] >= 0)
                for topic in described
            }
            return led == dict(partitions)

        await eventually(has_leaders, 20, f"leaders of {list(partitions)}")
    finally:
        await admin.close()


async def produce(
    bootstrap_servers: str, topic: str, records: Iterable[Record], *, partition: int | None = None
) -> list[RecordMetadata]:
    """Send records with acks=all, in order, and return where each went.

    Without `partition` the key's murmur2 hash decides, as in Kafka's own clients.
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, acks="all", linger_ms=2, max_request_size=MAX_REQUEST_BYTES
    )
    await producer.start()
    try:
        sent = [
            await producer.send(topic, value, key=key, headers=list(headers), partition=partition)
            for key, value, headers in records
        ]
        return list(await asyncio.gather(*sent))
    finally:
        await producer.stop()


async def read_topic(
    bootstrap_servers: str, topic: str, *, timeout_s: float = 30, committed: bool = True
) -> list[ConsumerRecord]:
    """Every record between a topic's start and its end offsets as they stand now, by partition and offset.

    Of open and aborted transactions too, unless they are to be `committed`.
    """
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap_servers,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=MAX_REQUEST_BYTES,
        isolation_level="read_committed" if committed else "read_uncommitted",
    )
    try:
        async with asyncio.timeout(timeout_s):
            await consumer.start()
            return await _read_to_end(consumer)
    finally:
        await consumer.stop()


async def _read_to_end(consumer: AIOKafkaConsumer) -> list[ConsumerRecord]:
    # Without a group, the consumer has every partition of its topic.
    partitions = sorted(consumer.assignment())
    assert partitions, "the topic has no partitions"
    await consumer.seek_to_beginning(*partitions)
    ends = await consumer.end_offsets(partitions)
    found: list[ConsumerRecord] = []
    # The position, not the count, tells the end: transaction markers and compaction leave gaps.
    while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
        batches = await consumer.getmany(*partitions, timeout_ms=100)
        found += [record for batch in batches.values() for record in batch]
    kept = [
        record for record in found if record.offset < ends[TopicPartition(record.topic, record.partition)]
    ]
    return sorted(kept, key=lambda record: (record.partition, record.offset))


def wait_until(predicate: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Return once `predicate` holds; fail the test naming `what` when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain for {what}"
        time.sleep(0.02)


async def eventually(predicate: Callable[[], bool | Awaitable[bool]], timeout_s: float, what: str) -> None:
    """Like `wait_until`, for a coroutine; `predicate` may be a function or a coroutine function."""
    deadline = time.monotonic() + timeout_s
    while True:
        held = predicate()
        if await held if inspect.isawaitable(held) else held:
            return
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain for {what}"
        await asyncio.sleep(0.02)
