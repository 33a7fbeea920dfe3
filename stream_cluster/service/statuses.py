"""Task statuses on the results topic."""

from __future__ import annotations

import time

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_cluster.errors import BrokerUnavailable
from stream_cluster.messages import TaskStatus, encode_status, format_time

_HEADERS = [("content-type", b"application/json")]


def now_us() -> int:
    """The present in microseconds since the epoch."""
    return time.time_ns() // 1000


def now_text() -> str:
    """The present as statuses carry it."""
    return format_time(now_us() // 1000 * 1000)


class Statuses:
    """Writes statuses, keyed by account like every topic, and waits until the brokers have them."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    async def send(self, status: TaskStatus) -> None:
        """Return when the status is durable.

        Raises:
            BrokerUnavailable: the brokers did not acknowledge in time.
        """
        try:
            await self._producer.send_and_wait(
                self._topic, encode_status(status), key=status.account_id.encode(), headers=_HEADERS
            )
        except KafkaError as error:
            raise BrokerUnavailable(f"topic {self._topic}: {error!r}") from error
