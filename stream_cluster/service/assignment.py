"""The partitions that this worker owns: opened, fed, paused and closed as the consumer group decides."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import InconsistentGroupProtocolError, KafkaError, OffsetOutOfRangeError

from stream_cluster.config import Settings
from stream_cluster.errors import Cancelled, ConfigError, LogGap
from stream_cluster.service.assignor import stored_states
from stream_cluster.service.gauges import refresh_gauges
from stream_cluster.service.ingest import IngestContext, PartitionRunner
from stream_cluster.service.kafka import (
    RebalanceListener,
    Standing,
    foreign_members,
    generation_of,
    standing_in_group,
)
from stream_cluster.service.logs import get_logger
from stream_cluster.service.opening import PartitionOpener
from stream_cluster.service.outputs import Outputs
from stream_cluster.service.placement import Held
from stream_cluster.service.tasks import Tasks
from stream_cluster.state.partition import Partition

_log = get_logger(__name__)
_POLL_MS = 200
# While a partition is paused, the end of its backlog has to be noticed soon: nothing else wakes the loop.
_PAUSED_POLL_MS = 10
_COMMIT_S = 2.0
# Records fetched and not applied yet are bounded by bytes too: a few large messages must not fill memory.
_BUFFER_MAX_BYTES = 64 * 1024 * 1024

NewOutputs = Callable[[int, Callable[[], Awaitable[Standing]], Callable[[], None]], Outputs]
"""Called with (partition, what the group says of it, what to do when it is lost)."""


class Assignment:
    """Follows the consumer group."""

    def __init__(
        self,
        settings: Settings,
        consumer: AIOKafkaConsumer,
        context: IngestContext,
        tasks: Tasks,
        *,
        partitions: int,
        opener: PartitionOpener,
        new_outputs: NewOutputs,
        fail: Callable[[BaseException], None],
    ) -> None:
        """`partitions` of the events topic; `fail` is told of errors that the service cannot live with."""
        self.runners: dict[int, PartitionRunner] = {}
        """By partition number; only those that are open."""
        self.attach_tasks: Callable[[PartitionRunner], Awaitable[None]] | None = None
        self._settings = settings
        self._topic = settings.kafka.events_topic
        self._consumer = consumer
        self._context = context
        self._tasks = tasks
        self._partitions = partitions
        self._opener = opener
        self._new_outputs = new_outputs
        self._fail = fail
        self._assigned: set[TopicPartition] | None = None
        self._opening: dict[TopicPartition, asyncio.Task[None]] = {}
        self._leaving: dict[int, asyncio.Task[None]] = {}
        """By number: what still closes partitions that were lost."""
        self._paused: set[TopicPartition] = set()
        self._closing = False
        self.epoch = 0
        """The group's generation that gave the present partitions; grows with every rebalance."""
        self._stored: dict[int, Held] = {}
        self._leavers: dict[TopicPartition, Callable[[], None]] = {}
        """Tells the outputs of a partition that is opened to wait for nothing more."""

    @property
    def loading(self) -> set[int]:
        """Numbers of partitions whose state is not open yet."""
        return {partition.partition for partition in self._opening}

    @property
    def paused(self) -> set[int]:
        """Numbers of partitions that take no records for now."""
        return {partition.partition for partition in self._paused}

    # -- rebalances ------------------------------------------------------------------------------------

    async def subscribe(self) -> None:
        """Join the group when the consumer starts."""
        self._stored = await self._opener.in_engine(
            stored_states, Path(self._settings.state.directory), self._topic, self._partitions
        )
        listener = RebalanceListener(self._on_assigned, self._on_revoked, self._fail)
        self._consumer.subscribe([self._topic], listener=listener)

    def held(self) -> dict[int, Held]:
        """The states that this worker has, open or closed, for the group to place partitions by."""
        opened = {number: Held(runner.next_offset, is_open=True) for number, runner in self.runners.items()}
        return {**self._stored, **opened}

    async def _on_revoked(self, revoked: set[TopicPartition]) -> None:
        # A partition that comes back is not loaded again, so nothing is closed before the new assignment
        # is known; until then its records are not taken in, and the consumer knows no partition.
        self._assigned = None
        for partition in revoked:
            if partition.partition in self.runners:
                self.runners[partition.partition].drop_buffer()
        # The group waits for us, with heartbeats, until this returns; nobody has got anything of ours yet.
        await self._tasks.hold_ends(self._settings.kafka.session_timeout_ms / 1000 / 2)

    async def _on_assigned(self, assigned: set[TopicPartition]) -> None:
        found = len(self._consumer.partitions_for_topic(self._topic) or ())
        if found != self._partitions:
            raise ConfigError(
                f"topic {self._topic} has {found} partitions now, but had {self._partitions} at start; "
                "accounts would be split between partitions"
            )
        self._context.metrics.rebalances.inc()
        self._context.metrics.partitions.set(len(assigned))
        before, self.epoch = self.epoch, generation_of(self._consumer)
        numbers = sorted(tp.partition for tp in assigned)
        _log.info("partitions_assigned", partitions=numbers, epoch=self.epoch)
        self._assigned = set(assigned)
        # Nothing is fetched for a partition before its state says from where. The offset given here is never
        # fetched; it keeps the consumer from asking the group for one that may not exist.
        self._consumer.pause(*assigned)
        for partition in assigned:
            self._consumer.seek(partition, 0)
        self._paused = set(assigned)
        if self._closing:
            return  # a last rebalance on the way out: nobody would close what is opened now
        # aiokafka sends no heartbeat before this callback returns: whatever takes longer than a moment would
        # cost this worker its membership, hence the partitions that it keeps. So it happens beside.
        held = {TopicPartition(self._topic, number) for number in self.runners} | self._opening.keys()
        # Whoever was not there in a generation may have had an owner between: what that one did, such as the
        # last word on a task, is found out by opening anew.
        was_there = self.epoch in (before, before + 1)
        for partition in held - assigned if was_there else held:
            self._leave(partition)
        self._tasks.release_ends()
        for partition in assigned:
            if partition in self._opening:
                continue
            if partition.partition in self.runners and partition.partition not in self._leaving:
                self.runners[partition.partition].epoch = self.epoch
                self._rewind(partition)
            else:
                outputs = self._outputs_of(partition)
                self._leavers[partition] = outputs.leave
                self._opening[partition] = asyncio.create_task(self._open(partition, outputs))

    def _require_wanted(self, partition: TopicPartition) -> None:
        """Asked by the task that opens it. Raises Cancelled: the partition was lost meanwhile."""
        if self._opening.get(partition) is not asyncio.current_task():
            raise Cancelled(f"partition {partition.partition} is no longer ours")

    async def _until_left(self, partition: TopicPartition) -> None:
        """A database has one owner at a time: what is left of a former assignment closes first."""
        self._require_wanted(partition)
        while (leaving := self._leaving.get(partition.partition)) is not None:
            await asyncio.wait([leaving])
            # Before the next look: that may be at a task which waits for this one.
            self._require_wanted(partition)

    async def _open(self, partition: TopicPartition, outputs: Outputs) -> None:
        """Load a partition's state beside the heartbeats, then begin to read where it ended."""
        began, number = time.monotonic(), partition.partition
        state: Partition | None = None
        runner: PartitionRunner | None = None
        try:
            await self._until_left(partition)
            state = await self._opener.open(number, outputs)
            self._require_wanted(partition)
            runner = PartitionRunner(state, self._context, self._fail, outputs=outputs, epoch=self.epoch)
            state = None
            self.runners[number] = runner
            # Before new tasks come in: one accepted meanwhile would be found unfinished, and run twice.
            await self._tasks.resume(runner)
            assert self.attach_tasks is not None
            await self.attach_tasks(runner)
            self._require_wanted(partition)
            self._rewind(partition)
            seconds = time.monotonic() - began
            self._context.metrics.partition_open.observe(seconds)
            _log.info(
                "partition_opened",
                partition=number,
                next_offset=runner.next_offset,
                seconds=round(seconds, 3),
            )
        except Cancelled:
            _log.info("partition_not_opened", partition=number)
        except Exception as error:
            self._fail(error)
        finally:
            if self._opening.get(partition) is asyncio.current_task():
                del self._opening[partition], self._leavers[partition]
            if state is not None:
                await self._opener.in_engine(state.close)
            if runner is None:
                await outputs.close()

    def _outputs_of(self, partition: TopicPartition) -> Outputs:
        number = partition.partition

        async def standing() -> Standing:
            runner = self.runners.get(number)
            if runner is None or number in self._leaving:
                return "unknown"
            return await standing_in_group(self._consumer, partition, runner.next_offset, self.epoch)

        return self._new_outputs(number, standing, lambda: self._lose(partition))

    def _lose(self, partition: TopicPartition) -> None:
        """Close a partition that the group has given up with this worker, before it says so itself."""
        runner = self.runners.get(partition.partition)
        if runner is not None and partition.partition not in self._leaving:
            self._context.metrics.fenced.inc()
            _log.warning("partition_fenced", partition=runner.number, next_offset=runner.next_offset)
            self._leave(partition)

    def _rewind(self, partition: TopicPartition) -> None:
        """Read on from what has been applied, if the partition is ours at this moment."""
        if self._assigned is None or partition not in self._assigned:
            return
        runner = self.runners[partition.partition]
        runner.drop_buffer()
        self._consumer.seek(partition, runner.next_offset)
        self._consumer.resume(partition)
        self._paused.discard(partition)

    def _leave(self, partition: TopicPartition) -> None:
        """Begin to close a partition that was lost. Its tasks end here no more from now on."""
        opening = self._opening.pop(partition, None)
        if opening is not None:
            self._leavers.pop(partition)()
        if opening is None and partition.partition in self._leaving:
            return
        runner = self.runners.get(partition.partition)
        if runner is not None:
            self._tasks.give_up(runner)
        self._leaving[partition.partition] = asyncio.create_task(self._finish_leaving(partition, opening))

    async def _finish_leaving(self, partition: TopicPartition, opening: asyncio.Task[None] | None) -> None:
        number = partition.partition
        try:
            if opening is not None:
                # Loading in a thread cannot be interrupted; it is closed once it is there. A restore can.
                self._opener.cancel(number)
                await asyncio.wait([opening])
            if number in self.runners:
                await self._close(number)
        except Exception as error:
            self._fail(error)
        finally:
            if self._leaving.get(number) is asyncio.current_task():
                del self._leaving[number]

    async def _close(self, number: int) -> None:
        """Close a partition; its batch under way is finished."""
        runner = self.runners.pop(number)
        runner.outputs.leave()
        await self._tasks.abandon(runner)
        await runner.stop()
        await runner.outputs.close()
        self._stored[number] = Held(runner.next_offset, is_open=False)
        self._context.metrics.forget_partition(number)
        _log.info("partition_closed", partition=number, next_offset=runner.next_offset)

    async def close(self) -> None:
        """Finish the batches under way and close every partition; tell Kafka how far we came."""
        self._closing = True
        for partition in list(self._opening):
            self._leave(partition)
        while self._leaving:
            await asyncio.wait(self._leaving.values())
        runners = dict(self.runners)
        # Beside each other: with brokers that do not answer, each waits for a while.
        failures = await asyncio.gather(*map(self._close, runners), return_exceptions=True)
        for failure in failures:
            if isinstance(failure, BaseException):
                raise failure
        await self._commit({TopicPartition(self._topic, n): r.next_offset for n, r in runners.items()})

    # -- records ---------------------------------------------------------------------------------------

    async def consume(self) -> None:
        """Fetch and feed until cancelled.

        Raises:
            LogGap: the log no longer has what comes next.
            ConfigError: the group has members that place partitions in another way.
        """
        committed_at = time.monotonic()
        while True:
            try:
                fetched = await self._consumer.getmany(
                    timeout_ms=_PAUSED_POLL_MS if self._paused else _POLL_MS,
                    max_records=self._settings.ingest.batch_max_records,
                )
            except OffsetOutOfRangeError as error:
                raise LogGap(f"topic {self._topic}: the log no longer has offset {error.args[0]}") from error
            except InconsistentGroupProtocolError as error:
                raise foreign_members(self._settings.kafka) from error
            for partition, records in fetched.items():
                runner = self.runners.get(partition.partition)
                if runner is not None and partition not in self._opening:
                    runner.feed(records, records[-1].offset + 1)
            await self._follow_positions()
            self._apply_backpressure()
            if time.monotonic() - committed_at > _COMMIT_S:
                committed_at = time.monotonic()
                await self._commit(
                    {TopicPartition(self._topic, n): r.next_offset for n, r in self.runners.items()}
                )

    async def _follow_positions(self) -> None:
        """Notice offsets that hold no record for us, such as transaction markers."""
        for number, runner in self.runners.items():
            partition = TopicPartition(self._topic, number)
            if runner.waits_at_barrier and partition not in self._paused and partition not in self._opening:
                with contextlib.suppress(KafkaError):
                    runner.feed([], await self._consumer.position(partition))

    def _apply_backpressure(self) -> None:
        """Pause partitions whose engine is behind; resume them when half of the backlog is done."""
        limit = self._settings.ingest.buffer_max_records
        too_many_bytes = sum(runner.buffered_bytes for runner in self.runners.values()) > _BUFFER_MAX_BYTES
        for number, runner in self.runners.items():
            partition = TopicPartition(self._topic, number)
            if partition in self._opening or self._assigned is None or partition not in self._assigned:
                continue
            if partition in self._paused:
                if runner.buffered_records <= limit // 2 and not (too_many_bytes and runner.buffered_bytes):
                    self._consumer.resume(partition)
                    self._paused.discard(partition)
            elif runner.buffered_records >= limit or (too_many_bytes and runner.buffered_bytes):
                self._consumer.pause(partition)
                self._paused.add(partition)
        self._context.metrics.paused.set(len(self._paused - set(self._opening)))

    async def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        """Tell Kafka's group how far we are, for lag monitors only: the state has the truth."""
        if offsets:
            with contextlib.suppress(KafkaError):
                await self._consumer.commit(offsets)

    # -- health ----------------------------------------------------------------------------------------

    def stalled(self, stall_s: float) -> list[str]:
        """Partitions whose present batch takes longer than it should."""
        now = time.monotonic()
        return [
            f"partition {number}: a batch has been under way for {now - runner.busy_since:.0f} s"
            for number, runner in self.runners.items()
            if runner.busy_since is not None and now - runner.busy_since > stall_s
        ]

    def unready(self, max_lag_records: int) -> list[str]:
        """What keeps this worker from being up to date."""
        if self._assigned is None:
            return ["joining the consumer group"]
        problems = [f"partition {tp.partition}: loading" for tp in self._opening]
        open_or_loading = self.runners.keys() | self.loading
        lost = {tp.partition for tp in self._assigned} - open_or_loading
        problems += [f"partition {number}: another worker has it" for number in sorted(lost)]
        for number in self.runners:
            lag = self.lag_records(number)
            if lag is None:
                problems.append(f"partition {number}: reading has not begun")
            elif lag > max_lag_records:
                problems.append(f"partition {number}: {lag} records behind, {max_lag_records} allowed")
        return problems

    def lag_records(self, number: int) -> int | None:
        """Records between next_offset and the end of the log; None before the first fetch."""
        partition = TopicPartition(self._topic, number)
        # In the midst of a rebalance the consumer has lost what is not closed here yet.
        end = self._consumer.highwater(partition) if partition in self._consumer.assignment() else None
        return None if end is None else max(0, end - self.runners[number].next_offset)

    def refresh_metrics(self) -> None:
        """Bring gauges up to date that are made from the present state."""
        refresh_gauges(self._context.metrics, self.runners, self.lag_records)
