"""From the outbox of one partition to the updates topic: in order, and each update at least once.

One produce request is under way at a time, and what follows waits until it is acknowledged. So a request that
is repeated, or that a killed process had sent, can repeat updates but neither leave one out nor swap two.
Updates go to the partition of the topic that has the number of theirs, which is that of their key.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError

from stream_cluster.config.settings import KafkaSettings
from stream_cluster.errors import BrokerUnavailable, Cancelled, ConfigError
from stream_cluster.messages import JSON, Rejection
from stream_cluster.messages.updates import decode_update
from stream_cluster.service.clock import now_ms
from stream_cluster.service.kafka import make_consumer, start_client
from stream_cluster.service.logs import get_logger
from stream_cluster.service.metrics import Metrics
from stream_cluster.service.outputs import Outputs
from stream_cluster.state.outbox import OutboxReader, OutboxRow, Told
from stream_cluster.state.partition import Partition

BATCH_BYTES = 512 * 1024
"""Most bytes of one produce request, for the producer of updates."""

_log = get_logger(__name__)
_HEADERS = [("content-type", JSON.encode())]
_READ_ROWS = 4096
# What the brokers have acknowledged leaves the database with the next batch, or after so long.
_TRIM_S = 1.0
_RESTATE_OBJECTS = 10_000
_NOTHING_S = 3600.0
# A request of an owner of the partition before us may have arrived late: a few of the last updates are read.
_TAIL_RECORDS = 1000
_POLL_MS = 500


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """What the relays of a service share."""

    topic: str
    outbox_max_messages: int


class Relay:
    """Tells the updates of one partition on. Runs beside its batches; `run_due` is called between them."""

    def __init__(
        self,
        partition: Partition,
        settings: RelaySettings,
        metrics: Metrics,
        outputs: Outputs,
        *,
        in_engine: Callable[..., Awaitable[Any]],
        wake: Callable[[], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        """`wake` is called when updates were acknowledged, `fail` with an error that ends the service."""
        assert partition.updates is not None
        self._partition = partition
        self._updates = partition.updates
        self._outbox = partition.updates.outbox
        self._number = partition.identity.partition
        self._settings = settings
        self._metrics = metrics
        self._in_engine = in_engine
        self._wake = wake
        self._fail = fail
        self._outputs = outputs
        self._reader = OutboxReader(partition.path)
        self._acknowledged_at = 0.0
        self._is_told_full = False
        self._more = asyncio.Event()
        self._stopping = False
        self._task = asyncio.create_task(self._guarded(), name=f"relay-{self._number}")

    def __len__(self) -> int:
        """Updates that wait for the brokers."""
        return len(self._outbox)

    @property
    def is_full(self) -> bool:
        """Whether ingest has to wait, because so many updates wait already."""
        is_full = len(self._outbox) >= self._settings.outbox_max_messages
        if is_full != self._is_told_full:
            self._is_told_full = is_full
            messages = len(self._outbox)
            if is_full:
                _log.warning("outbox_full", partition=self._number, messages=messages)
            else:
                _log.info("outbox_has_room", partition=self._number, messages=messages)
        return is_full

    # -- between batches -------------------------------------------------------------------------------

    def due_in_s(self) -> float:
        """Seconds until `run_due` has something to do; not above 0 when it has."""
        if self._updates.has_untold and not self.is_full:
            return 0.0
        if self._outbox.holds_acknowledged:
            return self._acknowledged_at + _TRIM_S - time.monotonic()
        return _NOTHING_S

    async def run_due(self) -> None:
        """Do what is due. Call it when no batch is under way, and after each."""
        if self._updates.has_untold and not self.is_full:
            stated = await self._in_engine(self._updates.restate, _RESTATE_OBJECTS)
            is_done = not self._updates.has_untold
            _log.info("clusters_restated", partition=self._number, updates=stated, done=is_done)
        elif self.due_in_s() <= 0:
            await self._in_engine(self._updates.trim_outbox)
        if self._outbox.erased_in_wal:
            self._outbox.erased_in_wal = False
            self._partition.erased_in_wal = True
        if len(self._outbox):
            self._more.set()

    async def stop(self) -> None:
        """Wait for the request under way, then end. Call it before the partition is closed."""
        self._stopping = True
        self._more.set()
        # A failure was handed to `fail` already.
        with contextlib.suppress(Exception):
            await self._task
        if self._outbox.holds_acknowledged:
            await self._in_engine(self._updates.trim_outbox)

    # -- beside them -----------------------------------------------------------------------------------

    async def _guarded(self) -> None:
        try:
            await self._run()
        except (BrokerUnavailable, Cancelled):
            pass  # gave up because it was to stop; the next start, or the next owner, tells the rest
        except Exception as error:
            _log.error("relay_failed", partition=self._number, error=str(error), kind=type(error).__name__)
            self._fail(error)
        finally:
            await self._in_engine(self._reader.close)

    async def _run(self) -> None:
        while not self._stopping:
            self._more.clear()
            while len(self._outbox) and not self._stopping:
                rows = await self._in_engine(self._reader.read, self._outbox.acknowledged_seq, _READ_ROWS)
                while rows and not self._stopping:
                    rows = rows[await self._send(rows) :]
            if not self._stopping:
                await self._more.wait()

    async def _send(self, rows: list[OutboxRow]) -> int:
        """Produce as many of the rows as one request holds; how many that were, once acknowledged."""
        topic, sent = self._settings.topic, 0

        async def send(producer: AIOKafkaProducer) -> None:
            nonlocal sent
            request = producer.create_batch()
            told_ms = now_ms()
            for row in rows:
                key = row.account_id.encode()
                if request.append(timestamp=told_ms, key=key, value=row.payload, headers=_HEADERS) is None:
                    break
            sent = request.record_count()
            await (await producer.send_batch(request, topic, partition=self._number))

        try:
            await self._outputs.write(send, topic, give_up=lambda: self._stopping)
        except MessageSizeTooLargeError as error:
            raise ConfigError(
                f"topic {topic} refuses {sent} cluster updates in one request for their size; "
                f"raise its max.message.bytes above {BATCH_BYTES} ({error})"
            ) from error
        self._outbox.acknowledged_seq = rows[sent - 1].seq
        self._acknowledged_at = time.monotonic()
        self._metrics.updates.inc(sent)
        self._wake()
        return sent


async def read_end(settings: KafkaSettings, number: int) -> Told | None:
    """How far a partition of the updates topic has come; None when it is empty.

    Raises:
        BrokerUnavailable: no broker answered.
        ConfigError: the topic holds something else than updates.
    """
    partition = TopicPartition(settings.updates_topic, number)
    consumer = await start_client(make_consumer(settings, group=False), settings)
    last: Told | None = None
    try:
        consumer.assign([partition])
        begin = (await consumer.beginning_offsets([partition]))[partition]
        end = (await consumer.end_offsets([partition]))[partition]
        consumer.seek(partition, max(begin, end - _TAIL_RECORDS))
        while await consumer.position(partition) < end:
            for record in (await consumer.getmany(partition, timeout_ms=_POLL_MS)).get(partition, ()):
                update = decode_update(record.value or b"")
                if isinstance(update, Rejection):
                    raise ConfigError(
                        f"topic {partition.topic} partition {number} offset {record.offset}: expected a "
                        f"cluster update ({update.detail}); kafka.updates_topic must be a topic of its own"
                    )
                found = Told(update.epoch, update.seq)
                last = found if last is None else max(last, found)
    finally:
        await consumer.stop()
    return last
