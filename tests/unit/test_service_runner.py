"""A partition that was lost: its batch under way is the last one."""

from __future__ import annotations

import asyncio
import sqlite3
from types import SimpleNamespace

import pytest

from stream_cluster.errors import Cancelled
from tests.support.kafka import eventually
from tests.support.life import Life, OwnOutputs
from tests.support.partitions import message, records, vectors
from tests.support.service import EngineGate


def _fetched(count):
    """Records as the consumer gives them."""
    made = records([message(n, vector) for n, vector in enumerate(vectors(count))])
    return [
        SimpleNamespace(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            timestamp=record.timestamp_ms,
            key=record.key,
            value=record.value,
            headers=(),
        )
        for record in made
    ]


async def test_losing_a_partition_closes_its_state_within_one_batch(tmp_path):
    async with Life(tmp_path, ingest__batch_max_records=1, ingest__linger_ms=0) as life:
        with EngineGate() as gate:
            life.runner.feed(_fetched(50), 50)
            await eventually(gate.held.is_set, 10, "the first batch")
            stopping = asyncio.create_task(life.runner.stop())
            await asyncio.sleep(0)
            gate.open()
            await stopping
        assert life.runner.next_offset == life.partition.next_offset == 1
        with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
            life.partition.ended_tasks(1)


class LostOutputs(OwnOutputs):
    """The group has given this worker up."""

    async def write(self, send, topic, *, give_up):
        raise Cancelled("partition 0 is no longer ours")


async def test_a_batch_whose_dead_letters_are_refused_is_not_applied_and_none_follows(tmp_path):
    async with Life(tmp_path, ingest__batch_max_records=4, ingest__linger_ms=0) as life:
        fetched = _fetched(50)
        fetched[5].value = b"{"

        async def send(rejections, outputs, *, give_up):
            await outputs.write(None, "dead", give_up=give_up)

        life.runner._context = SimpleNamespace(
            **{name: getattr(life.runner._context, name) for name in life.runner._context.__slots__}
            | {"dead_letters": SimpleNamespace(send=send)}
        )
        life.runner.outputs = LostOutputs()
        life.runner.feed(fetched, 50)
        await eventually(life.runner._task.done, 10, "the runner to end")
        assert life.runner.next_offset == life.partition.next_offset == 4
