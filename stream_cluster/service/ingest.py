"""One assigned partition: collects its records into micro-batches and applies them, one after another.

Everything that touches the partition's state happens in `PartitionRunner._run`, so batches, tasks and
snapshots never overlap. Work of more than a moment runs in threads; the event loop only waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import ConsumerRecord

from stream_cluster.config.settings import IngestSettings
from stream_cluster.errors import Cancelled
from stream_cluster.faults import fault_point
from stream_cluster.messages import RawRecord
from stream_cluster.service.clock import now_us
from stream_cluster.service.dead_letters import DeadLetters
from stream_cluster.service.logs import get_logger
from stream_cluster.service.metrics import Metrics
from stream_cluster.service.outputs import Outputs
from stream_cluster.service.relay import Relay, RelaySettings
from stream_cluster.service.upkeep import Upkeep, UpkeepSettings
from stream_cluster.state.batch import Outcome
from stream_cluster.state.partition import Partition

_T = TypeVar("_T")
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class IngestContext:
    """What all runners of a service share."""

    settings: IngestSettings
    engine: Executor
    """Threads for decoding, matching and SQLite."""
    dead_letters: DeadLetters
    metrics: Metrics
    upkeep: UpkeepSettings
    """What to do between batches."""
    relay: RelaySettings | None = None
    """Where cluster updates go; None when there are none."""
    on_commit: Callable[[int, Outcome], None] | None = None
    """Told of each committed micro-batch: (partition, outcome). For measurements."""


class PartitionRunner:
    """Feeds one `Partition`. Created when the partition is assigned, stopped when it is lost."""

    def __init__(
        self,
        partition: Partition,
        context: IngestContext,
        fail: Callable[[BaseException], None],
        *,
        outputs: Outputs,
        epoch: int = 0,
    ) -> None:
        """`fail` is told of an error that the service cannot live with."""
        self.partition = partition
        self.number = partition.identity.partition
        self.next_offset = partition.next_offset
        """next_offset of the last committed batch."""
        self.position = partition.next_offset
        """Offset of the next record that Kafka will give us; everything below it has been fed."""
        self.busy_since: float | None = None
        """Monotonic time at which the present batch was taken up, for the liveness probe."""
        self.other_offsets: dict[tuple[str, int], int] = {}
        """next_offsets of the task topic that the next commit makes durable."""
        self.outputs = outputs
        """The way to write for others."""
        self.epoch = epoch
        """The group's generation in which this worker was last given the partition."""
        self._context = context
        self._fail = fail
        self.buffered_bytes = 0
        """Size of the records that were fed and not taken up."""
        self._buffer: deque[ConsumerRecord] = deque()
        self._first_fed_at = 0.0
        self._between: deque[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]] = deque()
        self._barriers: dict[object, tuple[int, Callable[[], Awaitable[None]]]] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self._upkeep = Upkeep(partition, context.upkeep, context.metrics, self.in_engine)
        self.relay: Relay | None = None
        """Tells cluster updates on, where there are any."""
        if context.relay is not None:
            self.relay = Relay(
                partition,
                context.relay,
                context.metrics,
                outputs,
                in_engine=self.in_engine,
                wake=self._wake.set,
                fail=fail,
            )
        self._task = asyncio.create_task(self._guarded(), name=f"partition-{self.number}")

    # -- called by the consumer ------------------------------------------------------------------------

    def feed(self, records: Iterable[ConsumerRecord], position: int) -> None:
        """Take fetched records; `position` is the offset after them, past any gap in the log."""
        if not self._buffer:
            self._first_fed_at = time.monotonic()
        for record in records:
            self._buffer.append(record)
            self.buffered_bytes += _size_bytes(record)
        self.position = max(self.position, position)
        self._wake.set()

    @property
    def buffered_records(self) -> int:
        """Fed and not yet taken up."""
        return len(self._buffer)

    def fail(self, error: BaseException) -> None:
        """End the service because of an error of this partition's state that was found beside its batches."""
        _log.error("partition_failed", partition=self.number, error=str(error), kind=type(error).__name__)
        self._fail(error)

    def drop_buffer(self) -> None:
        """Forget what was fed and not taken up; the consumer seeks back to `next_offset`."""
        self._buffer.clear()
        self.buffered_bytes = 0
        self.position = self.next_offset

    @property
    def waits_at_barrier(self) -> bool:
        """Whether someone waits for next_offset to reach a point."""
        return bool(self._barriers)

    # -- called by tasks -------------------------------------------------------------------------------

    async def between_batches(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Run `work` when no batch is under way, and return what it returns.

        Raises:
            Cancelled: the runner stopped first.
        """
        if self._stopping:
            raise Cancelled(f"partition {self.number} is no longer ours")
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._between.append((work, future))
        self._wake.set()
        return await future

    def at_barrier(self, owner: object, barrier: int, reached: Callable[[], Awaitable[None]]) -> None:
        """Call `reached` once, between batches, as soon as next_offset is at or past `barrier`.

        No record at or past the barrier is applied in the batch that reaches it.
        """
        self._barriers[owner] = (barrier, reached)
        self._wake.set()

    def forget_barrier(self, owner: object) -> None:
        """Drop a barrier that is not needed any more."""
        self._barriers.pop(owner, None)

    async def in_engine(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run a function in the engine's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._context.engine, function, *arguments)

    async def stop(self) -> None:
        """Finish the present batch, store what is known of other topics, close the state."""
        self._stopping = True
        self._wake.set()
        # Failures were handed to `fail` already.
        with contextlib.suppress(Exception):
            await self._task

    # -- the loop --------------------------------------------------------------------------------------

    async def _guarded(self) -> None:
        try:
            try:
                await self._run()
                if self.other_offsets:
                    await self.in_engine(self.partition.offsets.store, dict(self.other_offsets))
            finally:
                self._refuse_waiting()
                if self.relay is not None:
                    await self.relay.stop()
                await self.in_engine(self.partition.close)
        except Exception as error:
            self.fail(error)
            raise

    async def _run(self) -> None:
        while not self._stopping:
            await self._wait_for_work()
            while self._between and not self._stopping:
                await self._do(*self._between.popleft())
            if not self._stopping and (self._may_apply() or self._is_behind_position()):
                await self._apply()
            if not self._stopping:
                # Not under `busy_since`: rewriting a large database may take minutes.
                await self._upkeep.run()
                if self.relay is not None:
                    await self.relay.run_due()
            await self._release_barriers()

    async def _wait_for_work(self) -> None:
        """Return when a batch is due, or something else waits to be done, or it is time to stop."""
        linger_s = self._context.settings.linger_ms / 1000
        while not (self._stopping or self._between or self._has_reached() or self._is_behind_position()):
            timeout_s = self._upkeep.due_in_s()
            if self.relay is not None:
                timeout_s = min(timeout_s, self.relay.due_in_s())
            if self._may_apply():
                timeout_s = min(timeout_s, self._first_fed_at + linger_s - time.monotonic())
                if len(self._buffer) >= self._context.settings.batch_max_records:
                    return
            if timeout_s <= 0:
                return
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()

    def _may_apply(self) -> bool:
        """Whether there are records to apply, and room for the updates that they cause."""
        return bool(self._buffer) and not (self.relay is not None and self.relay.is_full)

    def _is_behind_position(self) -> bool:
        """Whether the log moved past next_offset without a record (transaction markers, compaction).

        Only of interest to someone who waits for it.
        """
        return bool(self._barriers) and not self._buffer and self.position > self.next_offset

    async def _apply(self) -> None:
        """Steps 1 to 6 of `stream_cluster.state.partition`, with the dead letters between."""
        context = self._context
        began = self.busy_since = time.monotonic()
        records, next_offset = self._take()
        batch = await self.in_engine(
            self.partition.prepare, [raw_record(record) for record in records], next_offset
        )
        if batch.rejections:
            # Durable before the offset moves past them; a crash between repeats them, never loses them.
            # Brokers that do not answer are no reason to restart this process.
            self.busy_since = None
            try:
                await context.dead_letters.send(
                    batch.rejections, self.outputs, give_up=lambda: self._stopping
                )
            except Cancelled:
                self._stopping = True  # the new owner takes these records in
                return
            fault_point("dead_letter_produce")
            self.busy_since = time.monotonic()
            batch.stage_s["dead_letter"] = time.monotonic() - began - sum(batch.stage_s.values())
        outcome = await self.in_engine(self.partition.commit, batch, dict(self.other_offsets))
        self.next_offset = outcome.next_offset
        self.busy_since = None
        now = now_us() / 1e6
        lags_s = [max(0.0, now - record.timestamp / 1000) for record in records]
        context.metrics.observe_batch(outcome, time.monotonic() - began, lags_s)
        context.metrics.lag_seconds.labels(str(self.number)).set(lags_s[-1] if lags_s and self._buffer else 0)
        if context.on_commit is not None:
            context.on_commit(self.number, outcome)
        _log.debug("batch_applied", partition=self.number, records=len(records), next_offset=next_offset)

    def _take(self) -> tuple[list[ConsumerRecord], int]:
        """The next batch, which ends at the nearest barrier, and the offset after it."""
        barrier = min((barrier for barrier, _ in self._barriers.values()), default=None)
        records: list[ConsumerRecord] = []
        while self._buffer and len(records) < self._context.settings.batch_max_records:
            if barrier is not None and self.next_offset < barrier <= self._buffer[0].offset:
                break
            record = self._buffer.popleft()
            self.buffered_bytes -= _size_bytes(record)
            records.append(record)
        # Never back: after a rebalance, records that a batch under way had taken are fetched again.
        next_offset = max(self.next_offset, self._buffer[0].offset if self._buffer else self.position)
        self._first_fed_at = time.monotonic()
        return records, next_offset

    def _has_reached(self) -> bool:
        return bool(self._reached_barriers())

    def _reached_barriers(self) -> list[object]:
        return [owner for owner, (barrier, _) in self._barriers.items() if barrier <= self.next_offset]

    async def _release_barriers(self) -> None:
        for owner in self._reached_barriers():
            _, reached = self._barriers.pop(owner)
            await reached()

    async def _do(self, work: Callable[[], Awaitable[Any]], future: asyncio.Future[Any]) -> None:
        try:
            result = await work()
        except Exception as error:
            if future.done():
                raise
            future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)

    def _refuse_waiting(self) -> None:
        self._stopping = True
        while self._between:
            _, future = self._between.popleft()
            if not future.done():
                future.set_exception(Cancelled(f"partition {self.number} is no longer ours"))


def raw_record(record: ConsumerRecord) -> RawRecord:
    """A consumed record in the form that the decoders take."""
    content_type = next((value for name, value in record.headers if name == "content-type"), None)
    return RawRecord(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        None if content_type is None else content_type.decode("ascii", "replace"),
    )


def _size_bytes(record: ConsumerRecord) -> int:
    return len(record.value) if record.value is not None else 0
