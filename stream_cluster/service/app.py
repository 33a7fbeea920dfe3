"""The service: one process that owns some partitions of the events topic."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stream_cluster import __version__
from stream_cluster.config import Settings
from stream_cluster.errors import ConfigError, StreamClusterError
from stream_cluster.messages import TaskStatus, partition_for
from stream_cluster.service.assignment import Assignment, NewOutputs
from stream_cluster.service.assignor import NewestStateAssignor
from stream_cluster.service.backups import Backups
from stream_cluster.service.callbacks import Callbacks
from stream_cluster.service.dead_letters import DeadLetters
from stream_cluster.service.http import HttpServer
from stream_cluster.service.ingest import IngestContext, PartitionRunner
from stream_cluster.service.kafka import (
    ensure_topics,
    make_consumer,
    make_producer,
    partition_count,
    start_client,
    until_answered,
)
from stream_cluster.service.logs import configure_logs, get_logger
from stream_cluster.service.metrics import Metrics
from stream_cluster.service.opening import PartitionOpener
from stream_cluster.service.outputs import AskedOutputs, FencedOutputs
from stream_cluster.service.relay import BATCH_BYTES, RelaySettings
from stream_cluster.service.removals import Removals
from stream_cluster.service.restores import Restores
from stream_cluster.service.result_store import make_store
from stream_cluster.service.status_board import MAX_ENDED, StatusBoard
from stream_cluster.service.status_page import StatusPage
from stream_cluster.service.statuses import Statuses
from stream_cluster.service.task_history import read_ended
from stream_cluster.service.task_reader import TaskReader
from stream_cluster.service.tasks import Tasks
from stream_cluster.service.upkeep import UpkeepSettings
from stream_cluster.state.batch import Outcome
from stream_cluster.state.lock import DirectoryLock

_log = get_logger(__name__)
_BEAT_S = 1.0
_Client = TypeVar("_Client", AIOKafkaConsumer, AIOKafkaProducer)


class Service:
    """Wires the parts together and lives until `stop` or a fatal error."""

    def __init__(
        self,
        settings: Settings,
        *,
        on_commit: Callable[[int, Outcome], None] | None = None,
        accept_gap: bool = False,
    ) -> None:
        """`on_commit` is told of each committed micro-batch; `accept_gap`: see `Assignment`."""
        self._accept_gap = accept_gap
        self.settings = settings
        self.metrics = Metrics()
        self._on_commit = on_commit
        self._board = StatusBoard(settings.http)
        self._tasks: Tasks | None = None
        self._partition_of: Callable[[str], int] | None = None
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._beat = time.monotonic()
        self._assignment: Assignment | None = None
        self._backups: Backups | None = None
        self.http = HttpServer(
            settings.http,
            self.metrics.registry,
            self.live_problems,
            self.ready_problems,
            refresh=self._refresh,
            status_page=StatusPage(self._report) if settings.http.status_page else None,
        )

    def stop(self) -> None:
        """Ask the service to end: finish the batches under way, then leave."""
        self._stop.set()

    def fail(self, error: BaseException) -> None:
        """End the service because of an error that it cannot live with."""
        if self._failure is None:
            self._failure = error
        self._stop.set()

    async def run(self) -> None:
        """Run until `stop`.

        Raises:
            StreamClusterError: what ended the service, when it was not asked to stop.
        """
        settings = self.settings
        lock = DirectoryLock(Path(settings.state.directory))
        engine = ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="engine")
        task_threads = ThreadPoolExecutor(settings.tasks.concurrency, thread_name_prefix="task")
        clients: list[AIOKafkaConsumer | AIOKafkaProducer] = []
        try:
            await self.http.start()
            _log.info("service_starting", version=__version__, http_port=self.http.port)
            await self._until_stopped(self._work(engine, task_threads, clients))
        finally:
            for client in reversed(clients):
                await client.stop()
            await self.http.stop()
            task_threads.shutdown(wait=False, cancel_futures=True)
            engine.shutdown(wait=True)
            lock.release()
        if self._failure is not None:
            raise self._failure
        _log.info("service_stopped")

    async def _until_stopped(self, work: Coroutine[None, None, None]) -> None:
        """Run the work; when asked to stop while it still starts up, cancel it."""
        task = asyncio.create_task(work)
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done() and self._assignment is None:
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            if not self._stop.is_set():
                raise

    async def _work(
        self,
        engine: ThreadPoolExecutor,
        task_threads: ThreadPoolExecutor,
        clients: list[AIOKafkaConsumer | AIOKafkaProducer],
    ) -> None:
        settings, kafka = self.settings, self.settings.kafka
        store = make_store(settings)
        # Better now than after the first hour of work.
        await asyncio.get_running_loop().run_in_executor(engine, store.check)

        # Noted before they start, so that a stop while they connect ends them too: a consumer that has
        # joined would keep its group waiting.
        def noted(client: _Client) -> _Client:
            clients.append(client)
            return client

        task_consumer = await start_client(noted(make_consumer(kafka, group=False)), kafka)
        topics = [kafka.events_topic, kafka.tasks_topic, kafka.results_topic, kafka.dead_letter_topic]
        await ensure_topics(settings, topics, task_consumer)
        producer = await start_client(noted(make_producer(kafka, **self._producer_options)), kafka)
        assignor = NewestStateAssignor(kafka.events_topic)
        consumer = noted(make_consumer(kafka, group=True, partition_assignment_strategy=(assignor,)))
        partitions = await partition_count(producer, kafka.events_topic, kafka.connect_timeout_s)
        task_partitions = await partition_count(producer, kafka.tasks_topic, kafka.connect_timeout_s)

        relay = await self._relay_settings(task_consumer, producer, partitions)

        def partition_of(account_id: str) -> int:
            return partition_for(account_id, partitions, kafka.partitioner)

        async def end_of(partition: int) -> int:
            topic_partition = TopicPartition(kafka.events_topic, partition)
            ends = await until_answered(lambda: consumer.end_offsets([topic_partition]))
            return int(ends[topic_partition])

        async def ended_tasks() -> dict[tuple[str, str], TaskStatus]:
            return await read_ended(kafka, producer)

        context = IngestContext(
            settings.ingest,
            engine,
            DeadLetters(kafka.dead_letter_topic, self.metrics),
            self.metrics,
            UpkeepSettings(
                settings.retention.interval_s if settings.retention.ages_us else None,
                settings.state.vacuum_interval_s or None,
                settings.matching.second_chance_share,
            ),
            relay,
            self._committed,
        )
        statuses = Statuses(kafka.results_topic, self._board.note)
        removals = Removals(settings, store, statuses, self.metrics)
        tasks = Tasks(
            settings,
            statuses,
            self.metrics,
            task_threads,
            ended_tasks,
            store=store,
            removals=removals,
            callbacks=Callbacks(settings.callbacks, self.metrics),
        )
        self._tasks, self._partition_of = tasks, partition_of
        assignment = Assignment(
            settings,
            consumer,
            context,
            tasks,
            partitions=partitions,
            opener=PartitionOpener(
                settings,
                consumer,
                context,
                Restores(settings, partitions, self.metrics),
                partitions=partitions,
                partition_of=partition_of,
                accept_gap=self._accept_gap,
            ),
            new_outputs=self._outputs_by(producer),
            fail=self.fail,
        )
        self._backups = backups = Backups(settings, consumer, self.metrics)
        await backups.check()
        reader = TaskReader(
            task_consumer,
            [TopicPartition(kafka.tasks_topic, number) for number in range(task_partitions)],
            assignment.runners,
            partition_of=partition_of,
            end_of=end_of,
            read_ended=ended_tasks,
            tasks=tasks,
        )
        await reader.start()

        async def attach(runner: PartitionRunner) -> None:
            await self._recall_ended(runner)
            await reader.attach(runner)

        assignment.attach_tasks = attach
        assignor.held = assignment.held
        await assignment.subscribe()
        try:
            await start_client(consumer, kafka)
        except BaseException:
            # Partitions may have been opened already.
            await assignment.close()
            raise
        self._assignment = assignment
        await self._serve(assignment, reader, tasks, removals, backups)

    async def _relay_settings(
        self,
        consumer: AIOKafkaConsumer,
        producer: AIOKafkaProducer,
        partitions: int,
    ) -> RelaySettings | None:
        """Where cluster updates go, if they are wanted; their topic is checked."""
        settings, kafka = self.settings, self.settings.kafka
        if not settings.updates.enabled:
            return None
        # What is replayed from the start must be there from the start.
        configs = {"retention.ms": "-1"}
        await ensure_topics(settings, [kafka.updates_topic], consumer, partitions=partitions, configs=configs)
        found = await partition_count(producer, kafka.updates_topic, kafka.connect_timeout_s)
        if found != partitions:
            raise ConfigError(
                f"topic {kafka.updates_topic} has {found} partitions, expected {partitions} as topic "
                f"{kafka.events_topic} has, so that the updates of an account have one order"
            )
        return RelaySettings(kafka.updates_topic, settings.updates.outbox_max_messages)

    @property
    def _producer_options(self) -> dict[str, Any]:
        # One request of updates at a time is under way, so it should hold much.
        return {"max_batch_size": BATCH_BYTES} if self.settings.updates.enabled else {}

    def _outputs_by(self, producer: AIOKafkaProducer) -> NewOutputs:
        """`producer` is used where there are no transactions."""
        kafka = self.settings.kafka
        if not kafka.transactions:
            return lambda number, standing, on_lost: AskedOutputs(number, producer, standing, on_lost)
        return lambda number, standing, on_lost: FencedOutputs(
            number, kafka, standing, on_lost, **self._producer_options
        )

    async def _serve(
        self,
        assignment: Assignment,
        reader: TaskReader,
        tasks: Tasks,
        removals: Removals,
        backups: Backups,
    ) -> None:
        loops = [
            asyncio.create_task(assignment.consume(), name="consume"),
            asyncio.create_task(reader.run(), name="read-tasks"),
            asyncio.create_task(removals.run(assignment.runners), name="remove-archives"),
            asyncio.create_task(backups.run(assignment.runners), name="back-up"),
            asyncio.create_task(self._keep_beating(), name="beat"),
        ]
        stopped = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait([*loops, stopped], return_when=asyncio.FIRST_COMPLETED)
        for loop in done - {stopped}:
            self.fail(loop.exception() or StreamClusterError(f"{loop.get_name()} ended"))
        _log.info("service_stopping")
        # No more records and tasks; then the tasks under way, which a later process starts again; then
        # each partition finishes its batch, and what it holds then is backed up while it is still ours.
        for loop in loops:
            loop.cancel()
        stopped.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await tasks.abandon()
        numbers = list(assignment.runners)
        await assignment.close()
        if self._failure is None:
            await backups.final(numbers)

    async def _keep_beating(self) -> None:
        while True:
            self._beat = time.monotonic()
            self._board.beat()
            await asyncio.sleep(_BEAT_S)

    # -- health ----------------------------------------------------------------------------------------

    def live_problems(self) -> list[str]:
        """Why the process should be restarted: the loop or a partition's engine stands still."""
        stall_s = self.settings.http.live_stall_s
        problems = []
        if self._assignment is not None:
            silence_s = time.monotonic() - self._beat
            if silence_s > stall_s:
                problems.append(f"the event loop has stood still for {silence_s:.0f} s")
            problems += self._assignment.stalled(stall_s)
        return problems

    def ready_problems(self) -> list[str]:
        """Why the worker is not up to date."""
        if self._assignment is None:
            return ["connecting to Kafka"]
        return self._assignment.unready(self.settings.http.ready_max_lag_records)

    def _committed(self, partition: int, outcome: Outcome) -> None:
        self._board.applied(outcome.records)
        if self._on_commit is not None:
            self._on_commit(partition, outcome)

    async def _recall_ended(self, runner: PartitionRunner) -> None:
        """Let the status page know what ended before this process began."""
        if self.settings.http.status_page:
            for stored in await runner.in_engine(runner.partition.ended_tasks, MAX_ENDED):
                self._board.recall(stored)

    def _report(self) -> dict[str, Any]:
        """What the status page shows."""
        return self._board.report(
            self._assignment, self._tasks, partition_of=self._partition_of, problems=self.ready_problems()
        )

    def _refresh(self) -> None:
        """Bring the gauges up to date."""
        self.metrics.ready.set(not self.ready_problems())
        results = self.settings.results
        self.metrics.observe_disks(
            Path(self.settings.state.directory),
            Path(results.directory) if results.s3.bucket is None else None,
        )
        if self._assignment is not None:
            self._assignment.refresh_metrics()
        if self._backups is not None:
            self._backups.refresh_metrics()


async def _run_until_signal(settings: Settings, accept_gap: bool) -> None:
    service = Service(settings, accept_gap=accept_gap)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stop)
    await service.run()


def run_service(settings: Settings, *, accept_gap: bool = False) -> int:
    """Run the service until SIGTERM or SIGINT. Returns the exit status.

    Raises:
        StreamClusterError: what ended the service.
    """
    configure_logs(settings.log)
    try:
        asyncio.run(_run_until_signal(settings, accept_gap))
    except StreamClusterError as error:
        _log.error("service_failed", kind=type(error).__name__, error=str(error))
        raise
    except OSError as error:
        raise ConfigError(str(error)) from error
    return 0
