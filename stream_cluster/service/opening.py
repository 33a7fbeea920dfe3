"""A partition's state brought to where reading can go on: its former owner fenced, restored, loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_cluster.config import Settings
from stream_cluster.faults import fault_point
from stream_cluster.matching import SpaceMatcher
from stream_cluster.matching.costs import load_or_measure
from stream_cluster.matching.scale import default_cosine, floor_cosine
from stream_cluster.messages import DecodeRules
from stream_cluster.service.clock import now_us
from stream_cluster.service.ingest import IngestContext
from stream_cluster.service.kafka import until_answered
from stream_cluster.service.log_gaps import first_offset
from stream_cluster.service.logs import get_logger
from stream_cluster.service.outputs import Outputs
from stream_cluster.service.relay import read_end
from stream_cluster.service.restores import Restores
from stream_cluster.state.database import database_path
from stream_cluster.state.partition import Partition, PartitionIdentity
from stream_cluster.state.space import Space
from stream_cluster.state.updates import UpdateOptions

_T = TypeVar("_T")
_log = get_logger(__name__)


class PartitionOpener:
    """Opens the partitions of one service."""

    def __init__(
        self,
        settings: Settings,
        consumer: AIOKafkaConsumer,
        context: IngestContext,
        restores: Restores,
        *,
        partitions: int,
        partition_of: Callable[[str], int],
        accept_gap: bool = False,
    ) -> None:
        """`partitions` of the events topic.

        With `accept_gap`, records that are gone from the log when a partition opens are noted, not an error.
        """
        self._settings = settings
        self._topic = settings.kafka.events_topic
        self._consumer = consumer
        self._context = context
        self._restores = restores
        self._partitions = partitions
        self._partition_of = partition_of
        self._accept_gap = accept_gap

    async def open(self, number: int, outputs: Outputs) -> Partition:
        """The state with its next_offset, which the log has. The caller closes it.

        Raises:
            Cancelled: by `cancel`, or because `outputs` were to leave.
            LogGap, StateError, ConfigError: it cannot be used as it is.
        """
        # Before anything is looked at: what is found after this is the former owner's last word.
        await outputs.take_over()
        await self._restores.before_open(number, lambda: self._log_range(number))
        updates = await self._update_options(number)
        state = await self.in_engine(self._load, number, updates)
        try:
            state.next_offset = await first_offset(
                self._settings.kafka,
                state,
                await self._log_range(number),
                self.in_engine,
                is_first=lambda: self._is_first(number),
                accept_gap=self._accept_gap,
            )
        except BaseException:
            await self.in_engine(state.close)
            raise
        return state

    def cancel(self, number: int) -> None:
        """Stop what can be stopped. Loading in a thread cannot be, so `open` may still return a state."""
        self._restores.cancel(number)

    async def in_engine(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run a function in the engine's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._context.engine, function, *arguments)

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

    async def _is_first(self, number: int) -> bool:
        """Whether no worker of the group has ever read the partition, as far as the group remembers."""
        partition = TopicPartition(self._topic, number)
        return await until_answered(lambda: self._consumer.committed(partition)) is None

    async def _log_range(self, number: int) -> tuple[int, int]:
        """First offset that the log has, and the offset after its last."""
        partition = TopicPartition(self._topic, number)
        begin = (await until_answered(lambda: self._consumer.beginning_offsets([partition])))[partition]
        end = (await until_answered(lambda: self._consumer.end_offsets([partition])))[partition]
        return int(begin), int(end)


def _notifier(number: int, space_id: int) -> Callable[[str, object], None]:
    def notify(event: str, fields: object) -> None:
        assert isinstance(fields, dict)
        _log.info(event, partition=number, space_id=space_id, **fields)

    return notify
