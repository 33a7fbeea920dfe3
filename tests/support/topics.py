"""What an operator does to topics behind the service's back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.new_partitions import NewPartitions
from aiokafka.admin.records_to_delete import RecordsToDelete

from tests.support.kafka import create_topics, eventually


@asynccontextmanager
async def _admin(bootstrap_servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def topic_sizes(bootstrap_servers: str) -> dict[str, int]:
    """Number of partitions of every topic."""
    async with _admin(bootstrap_servers) as admin:
        described = await admin.describe_topics(await admin.list_topics())
        return {topic["topic"]: len(topic["partitions"]) for topic in described}


async def recreate(bootstrap_servers: str, topic: str, partitions: int = 1) -> None:
    """Delete a topic and make a new one of the same name."""
    await delete_topic(bootstrap_servers, topic)
    await create_topics(bootstrap_servers, {topic: partitions})


async def add_partitions(bootstrap_servers: str, topic: str, total: int) -> None:
    """Raise a topic's number of partitions."""
    async with _admin(bootstrap_servers) as admin:
        await admin.create_partitions({topic: NewPartitions(total)})
    await eventually(
        lambda: _has_partitions(bootstrap_servers, topic, total), 20, f"{total} partitions of {topic}"
    )


async def _has_partitions(bootstrap_servers: str, topic: str, total: int) -> bool:
    return (await topic_sizes(bootstrap_servers))[topic] == total


async def delete_topic(bootstrap_servers: str, topic: str) -> None:
    """Delete a topic, and return when no broker lists it."""
    async with _admin(bootstrap_servers) as admin:
        await admin.delete_topics([topic])

        async def is_gone() -> bool:
            return topic not in await admin.list_topics()

        await eventually(is_gone, 20, f"the end of topic {topic}")


async def group_has_members(bootstrap_servers: str, group: str) -> bool:
    """Whether a consumer group has any member."""
    async with _admin(bootstrap_servers) as admin:
        (answer,) = await admin.describe_consumer_groups([group])
        (described,) = answer.groups
        return bool(described[5])


async def group_is_left(bootstrap_servers: str, group: str) -> None:
    """Return when the brokers have given up every member of a group."""

    async def is_left() -> bool:
        return not await group_has_members(bootstrap_servers, group)

    await eventually(is_left, 60, f"the sessions of group {group} to end")


async def delete_records(bootstrap_servers: str, topic: str, before_offset: int) -> None:
    """Delete what is older, as retention does."""
    async with _admin(bootstrap_servers) as admin:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset)})
