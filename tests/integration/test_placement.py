"""Which worker gets which partition, on a real broker: what it has on its disk comes back to it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiokafka import AIOKafkaConsumer

from stream_cluster.errors import ConfigError
from stream_cluster.generate import GeneratedRecord, GenerateOptions, generate_events
from stream_cluster.sandbox import Broker
from tests.support.client import client_of
from tests.support.service import Worker, make_topics, running_service

ACCOUNTS = tuple(f"account-{number}" for number in range(8))
PARTITIONS = 4


def _generated(events: int) -> list[GeneratedRecord]:
    return list(generate_events(GenerateOptions(events=events, dim=8, accounts=ACCOUNTS)))


def _opened(worker: Worker) -> float:
    return worker.sample("partition_open_seconds_count")


def _owned(worker: Worker) -> set[int]:
    assert worker.service._assignment is not None
    return set(worker.service._assignment.runners)


def _taken(worker: Worker) -> int:
    return sum(worker.records().values())


async def _have_read(count: int, *workers: Worker) -> None:
    """Wait until the states of all partitions have so many records."""

    def read() -> int:
        assignments = [worker.service._assignment for worker in workers]
        return sum(r.next_offset for a in assignments if a for r in a.runners.values())

    await workers[0].until(lambda: read() == count, 60, f"{count} records to be applied")


async def _share(*workers: Worker) -> None:
    """Wait until each has its part of the partitions open and is up to date."""

    def is_shared() -> bool:
        return all(
            len(_owned(worker)) == worker.sample("partitions") == PARTITIONS / len(workers)
            and not worker.service.ready_problems()
            for worker in workers
        )

    for worker in workers:
        await worker.until(is_shared, 60, f"{len(workers)} workers to share the partitions")


async def test_partitions_return_to_the_holder_of_the_newest_state_and_kept_ones_are_not_loaded_again(
    broker: Broker, tmp_path: Path
) -> None:
    topics = await make_topics(broker, "newest", PARTITIONS)
    records = _generated(800)
    async with client_of(broker, topics) as client, running_service(broker, topics, tmp_path / "1") as first:
        await client.produce(records[:400])
        await first.applied(400)
        assert _opened(first) == PARTITIONS
        async with running_service(broker, topics, tmp_path / "2") as second:
            await _share(first, second)
            assert _opened(first) == PARTITIONS
            await client.produce(records[400:])
            await _have_read(800, first, second)
            kept, given = _owned(first), _owned(second)
        await _share(first)
        await _have_read(800, first)
        assert _opened(first) == PARTITIONS + len(given)
        async with running_service(broker, topics, tmp_path / "2") as second:
            await _share(first, second)
            assert (_owned(first), _owned(second)) == (kept, given)
            # Nothing is read again by the one, and nothing loaded again by the other.
            assert _taken(second) == 0
            assert _opened(second) == len(given)
            assert _opened(first) == PARTITIONS + len(given)


async def test_a_worker_with_a_name_of_its_own_has_its_partitions_back_without_a_rebalance(
    broker: Broker, tmp_path: Path
) -> None:
    topics = await make_topics(broker, "static", PARTITIONS)
    records = _generated(400)
    # Longer than the test: what happens here does not wait for it to pass.
    patient = {"kafka__session_timeout_ms": 120_000}

    def named(name: str) -> dict[str, object]:
        return {**patient, "kafka__group_instance_id": name}

    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path / "1", **named("worker-1")) as first,
    ):
        async with running_service(broker, topics, tmp_path / "2", **named("worker-2")) as second:
            await _share(first, second)
            await client.produce(records)
            await _have_read(400, first, second)
            owned = _owned(first), _owned(second)
            rebalances = first.sample("rebalances_total")
            assert second.service._assignment is not None
            epoch = second.service._assignment.epoch
        async with running_service(broker, topics, tmp_path / "2", **named("worker-2")) as second:
            await _share(first, second)
            assert (_owned(first), _owned(second)) == owned
            assert second.service._assignment is not None
            assert second.service._assignment.epoch == epoch
            assert first.sample("rebalances_total") == rebalances
            assert _taken(second) == 0


async def test_a_group_with_members_that_place_partitions_otherwise_is_a_mistake_that_is_told(
    broker: Broker, tmp_path: Path
) -> None:
    topics = await make_topics(broker, "foreign")
    foreign = AIOKafkaConsumer(
        topics.events, bootstrap_servers=broker.bootstrap_servers, group_id=topics.events
    )
    await foreign.start()
    polling = asyncio.create_task(foreign.getmany(timeout_ms=60_000))
    try:
        async with running_service(broker, topics, tmp_path, wait=False) as worker:
            error = await worker.ended(60)
    finally:
        polling.cancel()
        await foreign.stop()
    assert isinstance(error, ConfigError)
    assert f"kafka.group_id {topics.events}: the group has members" in str(error)
