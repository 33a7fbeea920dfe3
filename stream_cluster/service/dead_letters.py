"""The dead-letter topic: every rejected record, byte for byte, with the reason in its headers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from stream_cluster.errors import BrokerUnavailable, ConfigError
from stream_cluster.messages import RawRecord, Rejection
from stream_cluster.service.metrics import Metrics

_MAX_DETAIL = 500


class DeadLetters:
    """Writes rejected records and waits until the brokers have them."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, metrics: Metrics) -> None:
        self._producer = producer
        self._topic = topic
        self._metrics = metrics

    async def send(self, rejections: Sequence[tuple[RawRecord, Rejection]]) -> None:
        """Return when all are durable.

        Raises:
            ConfigError: the topic does not take a record of that size.
            BrokerUnavailable: the brokers did not acknowledge in time.
        """
        try:
            acknowledgements = [
                await self._producer.send(
                    self._topic, value=record.value, key=record.key, headers=_headers(record, rejection)
                )
                for record, rejection in rejections
            ]
            await asyncio.gather(*acknowledgements)
        except MessageSizeTooLargeError as error:
            raise ConfigError(
                f"topic {self._topic} refuses a rejected record for its size; raise its max.message.bytes, "
                f"and kafka.max_message_bytes, to what {rejections[0][0].topic} accepts ({error})"
            ) from error
        except KafkaError as error:
            raise BrokerUnavailable(f"topic {self._topic}: {error!r}") from error
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
