"""Which tasks have ended, according to the results topic.

A state may not know what became of a task: another worker had the partition meanwhile, the database was lost,
or the process died between a task's last status and the note of it. The statuses tell which tasks have had
their last word and must not run again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiokafka import AIOKafkaProducer, TopicPartition

from stream_cluster.config.settings import KafkaSettings
from stream_cluster.messages import Rejection, TaskStatus, decode_status
from stream_cluster.service.kafka import high_watermarks, make_consumer, partition_count, start_client

_POLL_MS = 500

ReadEnded = Callable[[], Awaitable[Mapping[tuple[str, str], TaskStatus]]]
"""Gives the last status by (account_id, task_id) of every task that has ended."""


async def read_ended(
    settings: KafkaSettings, producer: AIOKafkaProducer
) -> dict[tuple[str, str], TaskStatus]:
    """Last status by (account_id, task_id) of every task that has ended, of what the topic holds now.

    `producer` is only asked for the topic's partitions.

    Raises:
        BrokerUnavailable: no broker answered.
    """
    topic = settings.results_topic
    count = await partition_count(producer, topic, settings.connect_timeout_s)
    partitions = [TopicPartition(topic, number) for number in range(count)]
    # Not the end of what is committed: a status may stand behind a transaction that a dead worker left open,
    # which ends when its partition is taken over, or after a while.
    ends = await high_watermarks(settings, partitions)
    consumer = await start_client(make_consumer(settings, group=False), settings)
    ended: dict[tuple[str, str], TaskStatus] = {}
    try:
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                for record in records:
                    status = None if record.value is None else decode_status(record.value)
                    if status is not None and not isinstance(status, Rejection) and _is_last_word(status):
                        ended[status.account_id, status.task_id] = status
    finally:
        await consumer.stop()
    return ended


def _is_last_word(status: TaskStatus) -> bool:
    """Whether a task has ended; not so when a delete request named a task that never was."""
    return status.ended and (status.error is None or status.error.code != "unknown_task")
