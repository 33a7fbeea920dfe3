"""Reads the task topic: every worker reads all of it and serves the accounts of its own partitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from stream_cluster.errors import Cancelled
from stream_cluster.messages import (
    BadTask,
    CancelRequest,
    DeleteRequest,
    TaskRequest,
    TaskStatus,
    decode_task,
)
from stream_cluster.service.ingest import PartitionRunner, raw_record
from stream_cluster.service.kafka import until_answered
from stream_cluster.service.logs import get_logger
from stream_cluster.service.task_history import ReadEnded
from stream_cluster.service.tasks import Tasks

_log = get_logger(__name__)


class TaskReader:
    """Hands each task to the runner of its account's partition.

    Every partition's state keeps its own next_offset of the task topic, so a partition that was loaded
    later than others, or comes from another worker, makes the reader go back; the others pass over what
    they have seen.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        partitions: list[TopicPartition],
        runners: Mapping[int, PartitionRunner],
        *,
        partition_of: Callable[[str], int],
        end_of: Callable[[int], Awaitable[int]],
        read_ended: ReadEnded,
        tasks: Tasks,
    ) -> None:
        """`partition_of` gives an account's partition of the events topic, `end_of` that partition's end.

        `read_ended` tells a state that is behind what became of the tasks that it has not read.
        """
        self._consumer = consumer
        self._partitions = partitions
        self._runners = runners
        self._partition_of = partition_of
        self._end_of = end_of
        self._read_ended = read_ended
        self._tasks = tasks
        self._ended: dict[int, Mapping[tuple[str, str], TaskStatus]] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._seeks: Counter[TopicPartition] = Counter()

    async def start(self) -> None:
        """Assign the topic's partitions; reading begins where the first runner needs it."""
        self._consumer.assign(self._partitions)
        await self._consumer.seek_to_end(*self._partitions)
        for partition in self._partitions:
            self._positions[partition] = await self._consumer.position(partition)

    async def attach(self, runner: PartitionRunner) -> None:
        """Make sure that a runner sees every task from its own next_offset on."""
        beginnings = await until_answered(lambda: self._consumer.beginning_offsets(self._partitions))
        # A state that never read the topic starts at its beginning.
        offsets = {
            partition: max(
                runner.partition.stored_offset(partition.topic, partition.partition) or 0, beginning
            )
            for partition, beginning in beginnings.items()
        }
        self._ended.pop(runner.number, None)
        # Not this reader's positions: another partition may have made it go back, and what it has not read
        # yet may have been answered by the worker that had this partition before.
        ends = await until_answered(lambda: self._consumer.end_offsets(self._partitions))
        if any(wanted < ends[partition] for partition, wanted in offsets.items()):
            self._ended[runner.number] = await self._read_ended()
        for partition, wanted in offsets.items():
            label = partition.topic, partition.partition
            runner.other_offsets[label] = wanted
            if wanted < self._positions[partition]:
                self._consumer.seek(partition, wanted)
                self._seeks[partition] += 1
                self._positions[partition] = wanted

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            fetched = await self._consumer.getmany(timeout_ms=1000)
            seeks = self._seeks.copy()
            for partition, records in fetched.items():
                for record in records:
                    if self._seeks[partition] != seeks[partition]:
                        break  # `attach` went back meanwhile: what is left here comes again
                    await self._handle(record)
                    if self._seeks[partition] == seeks[partition]:
                        self._positions[partition] = record.offset + 1

    async def _handle(self, record: ConsumerRecord) -> None:
        task = decode_task(raw_record(record))
        if isinstance(task, BadTask) and not task.reportable:
            _log.warning(
                "task_unreadable", partition=record.partition, offset=record.offset, reason=task.reason.value
            )
            return
        assert task.account_id is not None
        runner = self._runners.get(self._partition_of(task.account_id))
        label = record.topic, record.partition
        # One that is not attached yet goes back to this record when it is; taking it now would make its state
        # say that nothing before it is left.
        if runner is None or label not in runner.other_offsets or record.offset < runner.other_offsets[label]:
            return
        try:
            await self._serve(runner, task, {label: record.offset + 1})
        except Cancelled:
            return  # the partition was lost meanwhile; its next owner reads the task again
        runner.other_offsets[label] = record.offset + 1

    async def _serve(
        self,
        runner: PartitionRunner,
        task: TaskRequest | CancelRequest | DeleteRequest | BadTask,
        offsets: Mapping[tuple[str, int], int],
    ) -> None:
        key = task.account_id or "", task.task_id or ""
        ended = self._ended.get(runner.number, {}).get(key)
        if isinstance(task, TaskRequest):
            barrier = await self._end_of(runner.number)
            await self._tasks.accept(runner, task, barrier, offsets, ended)
        elif isinstance(task, CancelRequest):
            await self._tasks.cancel(runner, task.account_id, task.task_id, offsets)
        elif isinstance(task, DeleteRequest):
            if ended is None or ended.archive_removed is None:
                await self._tasks.delete(runner, task.account_id, task.task_id, offsets)
        elif ended is not None:
            return  # answered in an earlier life
        elif task.account_id is not None and task.task_id is not None:
            await self._tasks.reject(runner, task.account_id, task.task_id, task.code, task.message)
