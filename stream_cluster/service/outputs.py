"""What one partition tells others through Kafka: dead letters, statuses, cluster updates.

A worker that stood still, or was cut off, goes on without knowing that its partition has another owner. So
every write is a transaction of a producer whose transactional id is that of the partition. Whoever takes the
partition over starts a producer of that id before it looks at anything else, and from then on the brokers
refuse the one before, also in the midst of a transaction: the epoch of a producer is theirs, not ours.

    1. start the producer: the brokers fence the former one and abort what it left open
    2. ask the group whether the partition is ours; that is asked after 1, so a later owner fences us
    3. begin, send, commit; refused at any point: from 1 again, unless the group has given us up

A producer that is fenced is not proof enough of a new owner: a stale worker may have started one too. It is
refused in step 2, and the owner goes through all steps again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    TransactionalIdAuthorizationFailed,
)

from stream_cluster.config.settings import KafkaSettings
from stream_cluster.errors import BrokerUnavailable, Cancelled, ConfigError
from stream_cluster.faults import fault_point
from stream_cluster.service.kafka import Standing, make_producer, until_acknowledged
from stream_cluster.service.logs import get_logger

_T = TypeVar("_T")
_log = get_logger(__name__)
_ASK_AGAIN_S = 0.2
_RETRY_S = 0.5
# How long the end of a partition waits for what is still on its way.
_LEAVE_S = 5.0

Send = Callable[[AIOKafkaProducer], Awaitable[_T]]
"""Sends records, and returns once all are acknowledged."""


class Outputs(Protocol):
    """What the owner of a partition writes for others."""

    async def take_over(self) -> None:
        """Make sure that a former owner writes nothing more, as far as the brokers can.

        Tries again while they do not answer.

        Raises:
            Cancelled: the partition is about to be closed.
            ConfigError: the brokers do not let this worker do so.
        """
        ...

    async def write(self, send: Send[_T], topic: str, *, give_up: Callable[[], bool]) -> _T:
        """Return once what `send` sent is durable; while the brokers do not answer, try again.

        What is sent again may be there again, for whoever reads records that are not committed too.

        Raises:
            Cancelled: the partition is not ours any more, or is about to be closed.
            BrokerUnavailable: `give_up` said so while the brokers did not answer.
            MessageSizeTooLargeError: the topic does not take a message of that size; nothing was written.
        """
        ...

    async def is_owner(self) -> bool:
        """Whether the group says that the partition is ours; False too while it does not answer."""
        ...

    async def until_owned(self, give_up: Callable[[], bool]) -> None:
        """Return when the group has said that the partition is ours, before anything outside of Kafka.

        Raises:
            Cancelled: it is not ours any more, is about to be closed, or `give_up` said so.
        """
        ...

    def leave(self) -> None:
        """Wait for no answer of the group any more: the partition is about to be closed."""
        ...

    async def close(self) -> None:
        """End what is left. Call it when nobody writes any more."""
        ...


class AskedOutputs:
    """For brokers without transactions: the group is asked before each write.

    Between its answer and the brokers' acknowledgement a worker may be given up, so that one write of it may
    come after the first ones of the new owner.
    """

    def __init__(
        self,
        number: int,
        producer: AIOKafkaProducer | None,
        standing: Callable[[], Awaitable[Standing]],
        on_lost: Callable[[], None],
    ) -> None:
        """Of partition `number`. `on_lost` is called when the group has given this worker up."""
        self.number = number
        self._shared = producer
        self._standing = standing
        self._on_lost = on_lost
        self._leaving = False

    async def take_over(self) -> None:
        """Nothing: without transactions the brokers cannot."""

    async def write(self, send: Send[_T], topic: str, *, give_up: Callable[[], bool]) -> _T:
        """See `Outputs`."""
        assert self._shared is not None
        producer, results = self._shared, list[_T]()
        await self.until_owned(give_up)

        async def send_all() -> None:
            results[:] = [await send(producer)]

        await until_acknowledged(send_all, topic, lambda: self._leaving or give_up())
        return results[0]

    async def is_owner(self) -> bool:
        """See `Outputs`."""
        return await self._standing() == "owner"

    async def until_owned(self, give_up: Callable[[], bool]) -> None:
        """See `Outputs`."""
        while (standing := await self._standing()) != "owner":
            if standing == "given_up":
                self._on_lost()
            if standing == "given_up" or self._leaving or give_up():
                raise self._gone()
            await asyncio.sleep(_ASK_AGAIN_S)

    def leave(self) -> None:
        """See `Outputs`."""
        self._leaving = True

    async def close(self) -> None:
        """See `Outputs`."""
        self._leaving = True

    def _gone(self) -> Cancelled:
        return Cancelled(f"partition {self.number} is no longer ours")


class FencedOutputs(AskedOutputs):
    """For brokers with transactions: after a takeover, the former owner can write nothing at all."""

    def __init__(
        self,
        number: int,
        settings: KafkaSettings,
        standing: Callable[[], Awaitable[Standing]],
        on_lost: Callable[[], None],
        **producer_options: Any,
    ) -> None:
        """`producer_options` are those of its producer, such as `max_batch_size`."""
        super().__init__(number, None, standing, on_lost)
        self.transactional_id = transactional_id(settings, number)
        self._settings = settings
        self._options = producer_options
        self._timeout_s = settings.request_timeout_ms / 1000
        self._producer: AIOKafkaProducer | None = None
        self._is_confirmed = False
        """Whether the group said that the partition is ours since the producer began."""
        self._lock = asyncio.Lock()
        """A producer has one transaction at a time."""
        self._background: set[asyncio.Future[Any]] = set()

    async def take_over(self) -> None:
        """See `Outputs`: step 1."""
        async with self._lock:
            while self._producer is None:
                if self._leaving:
                    raise self._gone()
                try:
                    await self._begin()
                except (KafkaError, TimeoutError, OSError) as error:
                    _log.warning("not_answered", error=repr(error), retrying=True)
                    await asyncio.sleep(_RETRY_S)

    async def write(self, send: Send[_T], topic: str, *, give_up: Callable[[], bool]) -> _T:
        """See `Outputs`."""
        writing = self._keep(asyncio.ensure_future(self._write(send, topic, give_up)))
        # Whoever is cancelled meanwhile leaves a whole transaction behind, and not half of one.
        return await asyncio.shield(writing)

    async def _write(self, send: Send[_T], topic: str, give_up: Callable[[], bool]) -> _T:
        async with self._lock:
            while True:
                try:
                    return await self._transaction(send, give_up)
                except MessageSizeTooLargeError:
                    self._discard()
                    raise
                except (ProducerFenced, InvalidProducerEpoch, InvalidProducerIdMapping) as error:
                    # Another worker, or a transaction that took too long: the group knows.
                    self._discard()
                    _log.warning("outputs_fenced", partition=self.number, error=repr(error))
                    await self.until_owned(give_up)
                except (KafkaError, TimeoutError, OSError) as error:
                    # How far it came is not known, so its producer ends here; the next one aborts the rest.
                    self._discard()
                    if self._leaving or give_up():
                        raise BrokerUnavailable(f"topic {topic}: {error!r}") from error
                    _log.warning("not_acknowledged", topic=topic, error=repr(error), retrying=True)
                    await asyncio.sleep(_RETRY_S)

    async def _transaction(self, send: Send[_T], give_up: Callable[[], bool]) -> _T:
        """Steps 1 to 3."""
        if self._producer is None:
            if self._leaving:
                raise self._gone()
            await self._begin()
        if not self._is_confirmed:
            await self.until_owned(give_up)  # 2
            self._is_confirmed = True
        producer = self._producer
        assert producer is not None
        async with asyncio.timeout(self._timeout_s):  # 3
            await _usable(producer.begin_transaction())
            result = await send(producer)
            fault_point("output_commit")
            await _usable(producer.commit_transaction())
        return result

    async def _begin(self) -> None:
        """Step 1."""
        self._is_confirmed = False
        producer = make_producer(
            self._settings,
            transactional_id=self.transactional_id,
            # Where nobody takes the partition over, its open transaction holds readers up for so long.
            transaction_timeout_ms=self._settings.session_timeout_ms,
            **self._options,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.start()
        except TransactionalIdAuthorizationFailed as error:
            self._end(producer)
            raise ConfigError(
                f"the brokers do not let this worker use the transactional id {self.transactional_id}; allow "
                f"Write and Describe on transactional ids that begin with {self._settings.group_id}-, or set "
                "kafka.transactions = false"
            ) from error
        except BaseException:
            self._end(producer)
            raise
        self._producer = producer

    def _discard(self) -> None:
        """Use the producer no more; a later one of its id aborts what it has left open."""
        if self._producer is not None:
            self._end(self._producer)
            self._producer = None

    def _end(self, producer: AIOKafkaProducer) -> None:
        # Beside: it waits for brokers that may not answer.
        self._keep(asyncio.ensure_future(producer.stop()))

    def _keep(self, work: asyncio.Future[_T]) -> asyncio.Future[_T]:
        def forget(_: object) -> None:
            self._background.discard(work)
            if not work.cancelled():
                work.exception()  # whoever waited has it; else nobody wants it

        self._background.add(work)
        work.add_done_callback(forget)
        return work

    async def close(self) -> None:
        """See `Outputs`."""
        self._leaving = True
        if self._background:
            await asyncio.wait(self._background, timeout=_LEAVE_S)
        self._discard()
        if self._background:
            _, late = await asyncio.wait(self._background, timeout=_LEAVE_S)
            for work in late:
                work.cancel()


async def _usable(step: Awaitable[None]) -> None:
    try:
        await step
    except AssertionError as error:  # how aiokafka says that a producer has failed before
        raise KafkaError(repr(error)) from error


def transactional_id(settings: KafkaSettings, number: int) -> str:
    """Of the producer for a partition of the events topic; the same on every worker of the group."""
    return f"{settings.group_id}-{settings.events_topic}-{number}"
