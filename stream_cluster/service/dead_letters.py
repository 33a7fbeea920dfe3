"""The dead-letter topic: rejected records, byte for byte where they fit, with the reason in their headers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from stream_cluster.errors import ConfigError
from stream_cluster.messages import RawRecord, Rejection
from stream_cluster.service.clock import now_ms
from stream_cluster.service.logs import get_logger
from stream_cluster.service.metrics import Metrics
from stream_cluster.service.outputs import Outputs

_log = get_logger(__name__)
_MAX_DETAIL = 500


class DeadLetters:
    """Writes rejected records and waits until the brokers have them."""

    def __init__(self, topic: str, metrics: Metrics) -> None:
        self._topic = topic
        self._metrics = metrics

    async def send(
        self,
        rejections: Sequence[tuple[RawRecord, Rejection]],
        outputs: Outputs,
        *,
        give_up: Callable[[], bool],
    ) -> None:
        """Return when all are durable; while the brokers do not answer, try again until `give_up`.

        A record that the topic does not take for its size goes without its value: the headers say where the
        original is, and `value-omitted` how many bytes it has.

        Raises:
            ConfigError: the topic does not even take a record without its value.
            BrokerUnavailable: gave up.
            Cancelled: the partition is no longer ours.
        """

        try:
            await self._send(rejections, outputs, give_up)
        except MessageSizeTooLargeError:
            # One that is too large must not stop the partition, so each goes alone.
            for record, rejection in rejections:
                await self._send_alone(record, rejection, outputs, give_up)
        self._metrics.dead_letters.inc(len(rejections))

    async def _send(
        self,
        rejections: Sequence[tuple[RawRecord, Rejection]],
        outputs: Outputs,
        give_up: Callable[[], bool],
    ) -> None:
        async def send_all(producer: AIOKafkaProducer) -> None:
            acknowledgements = [
                await producer.send(
                    self._topic,
                    value=record.value,
                    key=record.key,
                    headers=_headers(record, rejection),
                    timestamp_ms=now_ms(),
                )
                for record, rejection in rejections
            ]
            # All of them, so that what fails belongs to none that comes later.
            for answer in await asyncio.gather(*acknowledgements, return_exceptions=True):
                if isinstance(answer, BaseException):
                    raise answer

        await outputs.write(send_all, self._topic, give_up=give_up)

    async def _send_alone(
        self, record: RawRecord, rejection: Rejection, outputs: Outputs, give_up: Callable[[], bool]
    ) -> None:
        try:
            await self._send([(record, rejection)], outputs, give_up)
        except MessageSizeTooLargeError:
            size_bytes = len(record.value or b"")
            _log.warning(
                "dead_letter_without_value",
                partition=record.partition,
                offset=record.offset,
                size_bytes=size_bytes,
            )
            try:
                await outputs.write(
                    lambda producer: producer.send_and_wait(
                        self._topic,
                        value=None,
                        key=_short(record.key),
                        headers=[
                            *_headers(record, rejection),
                            ("value-omitted", str(size_bytes).encode()),
                        ],
                    ),
                    self._topic,
                    give_up=give_up,
                )
            except MessageSizeTooLargeError as error:
                raise ConfigError(
                    f"topic {self._topic} refuses even a record of a few kilobytes; raise its "
                    f"max.message.bytes ({error})"
                ) from error


def _short(key: bytes | None) -> bytes | None:
    return key if key is not None and len(key) <= _MAX_DETAIL else None


def _headers(record: RawRecord, rejection: Rejection) -> list[tuple[str, bytes]]:
    headers = {
        "reason": rejection.reason.value,
        "detail": rejection.detail[:_MAX_DETAIL],
        "source-topic": record.topic,
        "source-partition": str(record.partition),
        "source-offset": str(record.offset),
    }
    if record.content_type is not None:
        headers["content-type"] = record.content_type[:_MAX_DETAIL]
    return [(name, value.encode()) for name, value in headers.items()]
