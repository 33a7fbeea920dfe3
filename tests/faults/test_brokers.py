"""Brokers that die: the only one, one of three, two of three, all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from stream_cluster.sandbox import LocalBroker, start_local_broker
from stream_cluster.sandbox.broker import BrokerOptions, RouteClosed
from tests.conftest import no_broker
from tests.faults.record import Row
from tests.faults.stream import RECOVERY_S
from tests.faults.workers import answered, armed, caught_up, generated, is_answered, now, rebalances
from tests.support import kafka
from tests.support.client import client_of, clustering
from tests.support.service import Topics, running_service

EVENTS = 900
# Slow enough to die in the midst of.
SLOW = "decode=delay:0.05"
CHANGES = {
    "ingest__batch_max_records": 32,
    "ingest__buffer_max_records": 64,
    "kafka__request_timeout_ms": 4000,
    "http__ready_max_lag_records": 0,
}


@pytest.fixture(scope="module")
def three_brokers() -> Iterator[LocalBroker]:
    """Three brokers, each a controller too, that acknowledge what two of them have."""
    options = BrokerOptions(
        brokers=3,
        heap_max_mib=192,
        start_timeout_s=120,
        extra_properties={"min.insync.replicas": "2", "offsets.topic.replication.factor": "3"},
    )
    try:
        broker = start_local_broker(options, lambda _: None)
    except RouteClosed as reason:
        no_broker(reason)
        return
    with broker:
        yield broker


async def _topics(broker: LocalBroker, copies: int = 1) -> Topics:
    topics = Topics.named("brokers")
    counts = {topics.events: 1, topics.tasks: 2, topics.results: 2, topics.dead_letters: 1}
    await kafka.create_topics(broker.bootstrap_servers, counts, replication_factor=copies)
    return topics


async def _leader(broker: LocalBroker, topic: str) -> int:
    """Number of the broker, from 0, that leads the topic's first partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        (described,) = await admin.describe_topics([topic])
        return int(described["partitions"][0]["leader"]) - 1
    finally:
        await admin.close()


@pytest.mark.fault(
    what="the only broker is killed under load, with a task under way, and started again",
    survives="everything; the worker waits and goes on where its state ends",
    seen="`not_acknowledged` and `not_answered` while it lasts; the lag stands still",
    short=True,
)
async def test_the_only_broker_dies_and_comes_back(
    local_broker: LocalBroker, tmp_path: Path, row: Row
) -> None:
    records = generated(EVENTS)
    topics = await _topics(local_broker)
    async with (
        client_of(local_broker, topics) as client,
        running_service(local_broker, topics, tmp_path, **CHANGES) as worker,
    ):
        with armed(SLOW):
            await client.produce(records)
            await client.submit(clustering("under way", threshold=0.55))
            await client.reached("pending", "under way")
            assert sum(worker.records().values()) < EVENTS, "the load was over before the broker died"
            await asyncio.to_thread(local_broker.restart)
        row.count(broker_restarts=1)
        await caught_up(worker, row, EVENTS, now())
        await is_answered(client, records, row, "under way")
        row.count(rebalances=max(0, rebalances(worker)))


@pytest.mark.fault(
    what="one of three brokers is killed under load, the one that leads the partition",
    survives="everything; another one leads, and the worker does not stop",
    seen="warnings of the Kafka client; a short rise of the lag",
)
async def test_one_of_three_brokers_dies_and_ingest_goes_on(
    three_brokers: LocalBroker, tmp_path: Path, row: Row
) -> None:
    records = generated(EVENTS)
    topics = await _topics(three_brokers, 3)
    async with (
        client_of(three_brokers, topics) as client,
        running_service(three_brokers, topics, tmp_path, **CHANGES) as worker,
    ):
        leader = await _leader(three_brokers, topics.events)
        with armed(SLOW):
            await client.produce(records)
            await worker.applied(32)
            await asyncio.to_thread(three_brokers.kill, leader)
            began = now()
        await caught_up(worker, row, EVENTS, began)
        await answered(client, records, row, "with two")
        await asyncio.to_thread(three_brokers.start, leader)
        row.count(broker_restarts=1, rebalances=max(0, rebalances(worker)))


@pytest.mark.fault(
    what="two of three brokers are killed: fewer than `min.insync.replicas` are left",
    survives="everything; statuses and dead letters wait until they can be acknowledged",
    seen="`not_acknowledged`; tasks have no further status until a second broker is back",
)
async def test_without_enough_brokers_statuses_wait(
    three_brokers: LocalBroker, tmp_path: Path, row: Row
) -> None:
    records = generated(EVENTS)
    topics = await _topics(three_brokers, 3)
    async with (
        client_of(three_brokers, topics) as client,
        running_service(three_brokers, topics, tmp_path, **CHANGES) as worker,
    ):
        await client.produce(records)
        await worker.applied(EVENTS, RECOVERY_S)
        # The answer is ready when the brokers are not.
        with armed("snapshot=delay:2"):
            await client.submit(clustering("waits", threshold=0.55))
            await client.reached("pending", "waits")
            await worker.until(lambda: worker.sample("tasks_running") == 1, RECOVERY_S, "the snapshot")
            for number in (0, 1):
                await asyncio.to_thread(three_brokers.kill, number)
        archive = tmp_path / "results" / "demo" / "waits.zip"
        await worker.until(archive.exists, RECOVERY_S, "the archive")
        assert "done" not in {status["status"] for status in client.statuses("waits")}
        await asyncio.to_thread(_start_both, three_brokers)
        began = now()
        row.count(broker_restarts=2)
        await is_answered(client, records, row, "waits")
        await caught_up(worker, row, EVENTS, began)


def _start_both(brokers: LocalBroker) -> None:
    for number in (0, 1):
        brokers.start(number)


@pytest.mark.fault(
    what="all brokers are killed under load and started again",
    survives="everything that the brokers had acknowledged",
    seen="as with the only broker",
)
async def test_all_brokers_die_and_come_back(three_brokers: LocalBroker, tmp_path: Path, row: Row) -> None:
    records = generated(EVENTS)
    topics = await _topics(three_brokers, 3)
    async with (
        client_of(three_brokers, topics) as client,
        running_service(three_brokers, topics, tmp_path, **CHANGES) as worker,
    ):
        with armed(SLOW):
            await client.produce(records)
            await worker.applied(32)
            await asyncio.to_thread(three_brokers.restart)
            began = now()
        row.count(broker_restarts=3)
        await caught_up(worker, row, EVENTS, began)
        await answered(client, records, row, "after all")
        row.count(rebalances=max(0, rebalances(worker)))
