"""The dead-letter topic: every rejected record, byte for byte, with the reason in its headers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from stream_cluster.errors import ConfigError
from stream_cluster.messages import RawRecord, Rejection
from stream_cluster.service.clock import now_ms
from stream_cluster.service.kafka import until_acknowledged
from stream_cluster.service.metrics import Metrics

_MAX_DETAIL = 500


class DeadLetters:
    """Writes rejected records and waits until the brokers have them."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, metrics: Metrics) -> None:
        self._producer = producer
        self._topic = topic
        self._metrics = metrics

    async def send(
        self, rejections: Sequence[tuple[RawRecord, Rejection]], *, give_up: Callable[[], bool]
    ) -> None:
        """Return when all are durable; while the brokers do not answer, try again until `give_up`.

        Raises:
            ConfigError: the topic does not take a record of that size.
            BrokerUnavailable: gave up.
        """

        async def send_all() -> None:
            acknowledgements = [
                await self._producer.send(
                    self._topic,
                    value=record.value,
                    key=record.key,
                    headers=_headers(record, rejection),
                    timestamp_ms=now_ms(),
                )
                for record, rejection in rejections
            ]
            await asyncio.gather(*acknowledgements)

        try:
            await until_acknowledged(send_all, self._topic, give_up)
        except MessageSizeTooLargeError as error:
            raise ConfigError(
                f"topic {self._topic} refuses a rejected record for its size; raise its max.message.bytes, "
                f"and kafka.max_message_bytes, to what {rejections[0][0].topic} accepts ({error})"
            ) from error
        self._metrics.dead_letters.inc(len(rejections))


def _headers(record: RawRecord, rejection: Rejection) -> list[tuple[str, bytes]]:
    headers = {
        "reason": rejection.reason.value,
        "detail": rejection.detail[:_MAX_DETAIL],
        "source-topic": record.topic,
        "source-partition": str(record.partition),
        "source-offset": str(record.offset),
    }
    if record.content_type is not None:
        headers["content-type"] = record.content_type
    return [(name, value.encode()) for name, value in headers.items()]
