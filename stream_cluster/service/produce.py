"""Lines of files to the events topic, keyed by their account."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_cluster.config.settings import KafkaSettings
from stream_cluster.errors import BrokerUnavailable, InputError
from stream_cluster.messages import JSON, partition_for, read_account_id
from stream_cluster.model import Interrupt
from stream_cluster.service.kafka import make_producer, partition_count, start_client

_HEADERS = [("content-type", JSON.encode())]
_MAX_UNACKNOWLEDGED = 4096
_MAX_READ_AHEAD = 512
_TAKE_AT_MOST = 256
_POLL_S = 0.2
_TOPIC_TIMEOUT_S = 3.0


class Line(NamedTuple):
    """One message to send."""

    place: str
    """`file:line`, for messages to a person."""
    data: bytes


@dataclass(frozen=True, slots=True)
class ProduceSummary:
    """What was sent and acknowledged by all in-sync replicas."""

    events: int
    value_bytes: int
    seconds: float

    @property
    def events_per_second(self) -> float:
        """Mean rate."""
        return self.events / self.seconds if self.seconds else 0.0


async def produce_lines(
    lines: Iterable[Line],
    settings: KafkaSettings,
    *,
    rate: float | None = None,
    interrupt: Interrupt,
    on_sent: Callable[[int], None],
) -> ProduceSummary:
    """Send JSON messages to `kafka.events_topic` in order; every one is acknowledged when this returns.

    `rate` limits messages per second. `on_sent` is told the number sent so far.

    Raises:
        InputError: a line has no legible account_id or is too long; those before it have been sent.
        BrokerUnavailable: the brokers cannot be reached, or refused a message.
        ConfigError: the topic does not exist.
        Cancelled: asked to stop; what was sent has been acknowledged.
    """
    producer = make_producer(settings)
    try:
        await _heeding(start_client(producer, settings), interrupt)
        partitions = await partition_count(producer, settings.events_topic, _TOPIC_TIMEOUT_S)
        sender = _Sender(producer, settings, partitions, rate)
        reader = _Reader(lines, interrupt)
        try:
            while chunk := await asyncio.to_thread(reader.take):
                for line in chunk:
                    interrupt.check()
                    await sender.send(line)
                on_sent(sender.events)
        finally:
            await sender.flush()
        return sender.summary()
    except KafkaError as error:
        raise BrokerUnavailable(f"topic {settings.events_topic}: {error!r}") from error
    finally:
        await producer.stop()


async def _heeding(work: Coroutine[Any, Any, object], interrupt: Interrupt) -> None:
    """Wait for work that knows no interrupt, such as a connection. Raises Cancelled when asked to stop."""
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.wait([task], timeout=_POLL_S)
        if interrupt.cancelled and not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            interrupt.check()
    task.result()


class _Sender:
    """Keeps a bounded number of messages on their way."""

    def __init__(
        self, producer: AIOKafkaProducer, settings: KafkaSettings, partitions: int, rate: float | None
    ) -> None:
        self._producer = producer
        self._settings = settings
        self._partitions = partitions
        self._rate = rate
        self._began = time.monotonic()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self.events = 0
        self._value_bytes = 0

    async def send(self, line: Line) -> None:
        limit = self._settings.max_message_bytes
        if len(line.data) > limit:
            raise InputError(f"{line.place}: longer than kafka.max_message_bytes = {limit}{self._so_far()}")
        account_id = read_account_id(line.data, JSON)
        if account_id is None:
            raise InputError(f"{line.place}: found no legible account_id, which is the key{self._so_far()}")
        await self._pace()
        future = await self._producer.send(
            self._settings.events_topic,
            line.data,
            key=account_id.encode(),
            partition=partition_for(account_id, self._partitions, self._settings.partitioner),
            headers=_HEADERS,
        )
        self._waiting.append(future)
        self.events += 1
        self._value_bytes += len(line.data)
        while len(self._waiting) > _MAX_UNACKNOWLEDGED:
            await self._waiting.popleft()

    async def flush(self) -> None:
        """Wait until every message is answered. Raises the first KafkaError among the answers."""
        answers = await asyncio.gather(*self._waiting, return_exceptions=True)
        self._waiting.clear()
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    def summary(self) -> ProduceSummary:
        return ProduceSummary(self.events, self._value_bytes, time.monotonic() - self._began)

    def _so_far(self) -> str:
        return f"; {self.events} messages before it were sent"

    async def _pace(self) -> None:
        if self._rate is not None:
            ahead_s = self.events / self._rate - (time.monotonic() - self._began)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)


class _Reader:
    """Reads lines in a thread, so that a slow input neither blocks the loop nor holds back what is there."""

    def __init__(self, lines: Iterable[Line], interrupt: Interrupt) -> None:
        self._queue: queue.Queue[Line | BaseException | None] = queue.Queue(_MAX_READ_AHEAD)
        self._interrupt = interrupt
        self._end: BaseException | None = None
        self._ended = False
        threading.Thread(target=self._read, args=(lines,), name="read-lines", daemon=True).start()

    def take(self) -> list[Line]:
        """Wait for some lines; empty at the end. Raises what the reading ended with, after all lines."""
        taken: list[Line] = []
        while len(taken) < _TAKE_AT_MOST and not self._ended:
            try:
                item = self._queue.get_nowait() if taken else self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                if taken:
                    break
                self._interrupt.check()
                continue
            if isinstance(item, Line):
                taken.append(item)
            else:
                self._ended = True
                self._end = item
        if not taken and self._end is not None:
            raise self._end
        return taken

    def _read(self, lines: Iterable[Line]) -> None:
        end: BaseException | None = None
        try:
            for line in lines:
                if not self._put(line):
                    return
        except Exception as error:  # handed to the loop's side
            end = error
        self._put(end)

    def _put(self, item: Line | BaseException | None) -> bool:
        """False when nobody wants it any more."""
        while True:
            try:
                self._queue.put(item, timeout=_POLL_S)
            except queue.Full:
                if self._interrupt.cancelled:
                    return False
            else:
                return True
