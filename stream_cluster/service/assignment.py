"""The partitions that this worker owns: opened, fed, paused and closed as the consumer group decides."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from stream_cluster.config import Settings
from stream_cluster.errors import Cancelled, ConfigError, LogGap
from stream_cluster.faults import fault_point
from stream_cluster.matching import SpaceMatcher
from stream_cluster.matching.cells import CellMatcher
from stream_cluster.matching.costs import load_or_measure
from stream_cluster.matching.scale import default_cosine, floor_cosine
from stream_cluster.messages import DecodeRules
from stream_cluster.service.clock import now_us
from stream_cluster.service.ingest import IngestContext, PartitionRunner
from stream_cluster.service.kafka import RebalanceListener, until_answered
from stream_cluster.service.logs import get_logger
from stream_cluster.service.relay import read_end
from stream_cluster.service.restores import Restores
from stream_cluster.service.tasks import Tasks
from stream_cluster.state.database import database_path
from stream_cluster.state.partition import Partition, PartitionIdentity
from stream_cluster.state.space import Space
from stream_cluster.state.updates import UpdateOptions

_log = get_logger(__name__)
_POLL_MS = 200
# While a partition is paused, the end of its backlog has to be noticed soon: nothing else wakes the loop.
_PAUSED_POLL_MS = 10
_COMMIT_S = 2.0
# Records fetched and not applied yet are bounded by bytes too: a few large messages must not fill memory.
_BUFFER_MAX_BYTES = 64 * 1024 * 1024


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
        partition_of: Callable[[str], int],
        restores: Restores,
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
        self._partition_of = partition_of
        self._restores = restores
        self._fail = fail
        self._assigned: set[TopicPartition] | None = None
        self._opening: dict[TopicPartition, asyncio.Task[None]] = {}
        self._leaving: dict[int, asyncio.Task[None]] = {}
        """By number: what still closes partitions that were lost."""
        self._paused: set[TopicPartition] = set()
        self._caught_up: set[int] = set()
        self._closing = False

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
        listener = RebalanceListener(self._on_assigned, self._on_revoked, self._fail)
        self._consumer.subscribe([self._topic], listener=listener)

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
        _log.info("partitions_assigned", partitions=sorted(tp.partition for tp in assigned))
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
        for partition in held - assigned:
            self._leave(partition)
        self._tasks.release_ends()
        for partition in assigned:
            if partition in self._opening:
                continue
            if partition.partition in self.runners and partition.partition not in self._leaving:
                self._rewind(partition)
            else:
                self._opening[partition] = asyncio.create_task(self._open(partition))

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

    async def _open(self, partition: TopicPartition) -> None:
        """Load a partition's state beside the heartbeats, then begin to read where it ended."""
        began = time.monotonic()
        state: Partition | None = None
        try:
            await self._until_left(partition)
            await self._restores.before_open(partition.partition, lambda: self._log_range(partition))
            updates = await self._update_options(partition.partition)
            state = await asyncio.get_running_loop().run_in_executor(
                self._context.engine, self._load, partition.partition, updates
            )
            state.next_offset = await self._first_offset(partition, state)
            self._require_wanted(partition)
            runner = PartitionRunner(state, self._context, self._fail)
            state = None
            self.runners[partition.partition] = runner
            # Before new tasks come in: one accepted meanwhile would be found unfinished, and run twice.
            await self._tasks.resume(runner)
            assert self.attach_tasks is not None
            await self.attach_tasks(runner)
            self._rewind(partition)
            seconds = time.monotonic() - began
            self._context.metrics.partition_open.observe(seconds)
            _log.info(
                "partition_opened",
                partition=partition.partition,
                next_offset=runner.next_offset,
                seconds=round(seconds, 3),
            )
        except Cancelled:
            _log.info("partition_not_opened", partition=partition.partition)
        except Exception as error:
            self._fail(error)
        finally:
            if self._opening.get(partition) is asyncio.current_task():
                del self._opening[partition]
            if state is not None:
                await asyncio.get_running_loop().run_in_executor(self._context.engine, state.close)

    async def _update_options(self, number: int) -> UpdateOptions | None:
        if not self._settings.updates.enabled:
            return None
        end = await until_answered(lambda: read_end(self._settings.kafka, number))
        return UpdateOptions(self._settings.similarity, end, now_us())

    def _load(self, number: int, updates: UpdateOptions | None) -> Partition:
        fault_point("partition_open")
        settings = self._settings
        directory = Path(settings.state.directory)

        costs = load_or_measure(directory) if settings.matching.engine == "auto" else None

        def new_matcher(dim: int, space: Space) -> SpaceMatcher:
            return SpaceMatcher(
                dim,
                settings.matching,
                directory / f"partition-{number}-space-{space.space_id}.hnsw",
                costs=costs,
                counted_cosine=default_cosine(settings.similarity, space.key),
                notify=_notifier(number, space.space_id),
            )

        return Partition(
            database_path(directory, number),
            PartitionIdentity(self._topic, number, self._partitions, settings.kafka.partitioner),
            DecodeRules(
                partition_of=self._partition_of,
                max_message_bytes=settings.kafka.max_message_bytes,
                uint8_offset=settings.ingest.uint8_offset,
            ),
            new_matcher,
            lambda key: floor_cosine(settings.similarity, key),
            synchronous=settings.state.synchronous,
            page_cache_mb=settings.state.page_cache_mb,
            background=self._context.engine,
            retention_us=settings.retention.ages_us,
            updates=updates,
        )

    async def _first_offset(self, partition: TopicPartition, state: Partition) -> int:
        """Where to read from: the state's next_offset, which the log must still have.

        Raises:
            LogGap: records that the state needs are gone, or the topic is a new one.
        """
        begin, end = await self._log_range(partition)
        stored = state.stored_offset(self._topic, partition.partition)
        if stored is None:
            return begin
        if stored < begin:
            raise LogGap(
                f"topic {self._topic} partition {partition.partition}: the state needs offset {stored} next, "
                f"but the log begins at {begin}; {begin - stored} records are gone"
            )
        if stored > end:
            raise LogGap(
                f"topic {self._topic} partition {partition.partition}: the state has applied offsets below "
                f"{stored}, but the log ends at {end}; the topic was recreated or truncated"
            )
        return stored

    async def _log_range(self, partition: TopicPartition) -> tuple[int, int]:
        """First offset that the log has, and the offset after its last."""
        begin = (await until_answered(lambda: self._consumer.beginning_offsets([partition])))[partition]
        end = (await until_answered(lambda: self._consumer.end_offsets([partition])))[partition]
        return int(begin), int(end)

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
                self._restores.cancel(number)
                await asyncio.wait([opening])
            if number in self.runners:
                await self._close(number)
        except Exception as error:
            self._fail(error)
        finally:
            if self._leaving.get(number) is asyncio.current_task():
                del self._leaving[number]

    async def _close(self, number: int) -> None:
        runner = self.runners.pop(number)
        self._caught_up.discard(number)
        await self._tasks.abandon(runner)
        await runner.stop()
        self._context.metrics.forget_partition(number)
        _log.info("partition_closed", partition=number, next_offset=runner.next_offset)

    async def close(self) -> None:
        """Finish the batches under way and close every partition; tell Kafka how far we came."""
        self._closing = True
        for partition in list(self._opening):
            self._leave(partition)
        while self._leaving:
            await asyncio.wait(self._leaving.values())
        offsets = {}
        for number, runner in list(self.runners.items()):
            await self._close(number)
            offsets[TopicPartition(self._topic, number)] = runner.next_offset
        await self._commit(offsets)

    # -- records ---------------------------------------------------------------------------------------

    async def consume(self) -> None:
        """Fetch and feed until cancelled.

        Raises:
            LogGap: the log no longer has what comes next.
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
        metrics = self._context.metrics
        rows: Counter[str] = Counter()
        nbytes: Counter[str] = Counter()
        engines: Counter[str] = Counter()
        cells: dict[str, list[CellMatcher]] = {"face": [], "body": []}
        relays = [runner.relay for runner in self.runners.values() if runner.relay is not None]
        metrics.outbox_messages.set(sum(len(relay) for relay in relays))
        for number, runner in self.runners.items():
            lag = self.lag_records(number)
            if lag is not None:
                metrics.lag_records.labels(str(number)).set(lag)
            for space in runner.partition.spaces():
                rows[space.key.descriptor_type] += space.next_row - space.deleted
                engines[space.matcher.engine if space.matcher else "not loaded"] += 1
                nbytes[space.key.descriptor_type] += space.matcher.nbytes if space.matcher else 0
                if space.matcher is not None and space.matcher.cells is not None:
                    cells[space.key.descriptor_type].append(space.matcher.cells)
        for descriptor_type in ("face", "body"):
            metrics.rows.labels(descriptor_type).set(rows[descriptor_type])
            metrics.matcher_bytes.labels(descriptor_type).set(nbytes[descriptor_type])
        for descriptor_type, matchers in cells.items():
            metrics.observe_cells(descriptor_type, matchers)
        for engine in ("exact", "cells", "hnsw", "not loaded"):
            metrics.spaces.labels(engine).set(engines[engine])


def _notifier(number: int, space_id: int) -> Callable[[str, object], None]:
    def notify(event: str, fields: object) -> None:
        assert isinstance(fields, dict)
        _log.info(event, partition=number, space_id=space_id, **fields)

    return notify
