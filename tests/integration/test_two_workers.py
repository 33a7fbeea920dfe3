"""Two workers in one group share the partitions; when one leaves, the other takes its part over."""

from __future__ import annotations

import asyncio
from pathlib import Path

from stream_cluster.generate import GeneratedRecord, GenerateOptions, generate_events
from stream_cluster.messages import partition_for
from stream_cluster.sandbox import Broker
from stream_cluster.state.database import database_path
from stream_cluster.state.view import PartitionView
from tests.support.archives import expected_clusters, sightings
from tests.support.client import Client, client_of, clustering
from tests.support.service import Worker, make_topics, running_service

ACCOUNTS = tuple(f"account-{number}" for number in range(8))
PARTITIONS = 4


def _generated(events: int = 2000) -> list[GeneratedRecord]:
    options = GenerateOptions(events=events, people=100, dim=32, accounts=ACCOUNTS, cameras=16)
    return list(generate_events(options))


async def _share(*workers: Worker) -> None:
    """Wait until the workers have all partitions between them, evenly, and are ready."""

    def is_shared() -> bool:
        shares = [worker.sample("partitions") for worker in workers]
        ready = not any(worker.service.ready_problems() for worker in workers)
        return ready and set(shares) == {PARTITIONS / len(workers)}

    for worker in workers:
        await worker.until(is_shared, 30, f"{len(workers)} workers to share the partitions")


async def _tasks(client: Client, records: list[GeneratedRecord], name: str) -> None:
    """A task of every account: each is answered once, and exactly."""
    await client.submit(*(clustering(name, account, threshold=0.6) for account in ACCOUNTS))
    for account in ACCOUNTS:
        archive = await client.archive(name, account, timeout_s=60)
        assert archive.members == expected_clusters(sightings(records, account), 0.6)
        assert archive.manifest["as_of"]["partition"] == partition_for(account, PARTITIONS, "murmur2")
        states = [status["status"] for status in client.statuses(name, account)]
        assert (states.count("pending"), states.count("done")) == (1, 1)


async def test_two_workers_answer_every_account_once_and_one_takes_over_from_the_other(
    broker: Broker, tmp_path: Path
) -> None:
    records = _generated()
    topics = await make_topics(broker, "workers", PARTITIONS)
    assert {partition_for(account, PARTITIONS, "murmur2") for account in ACCOUNTS} == set(range(PARTITIONS))
    async with client_of(broker, topics) as client, running_service(broker, topics, tmp_path / "1") as first:
        async with running_service(broker, topics, tmp_path / "2") as second:
            await _share(first, second)
            await client.produce(records[:1000])
            await _tasks(client, records[:1000], "by two")
            taken = [sum(worker.records().values()) for worker in (first, second)]
            assert sum(taken) == 1000
            assert min(taken) > 0
            await second.stop()
        await _share(first)
        # The partitions of the other are read from the beginning of the log.
        await client.produce(records[1000:])
        await _tasks(client, records, "by one")
        # The rebuilt state has read the old tasks again, and knows from their statuses that they have ended.
        for account in ACCOUNTS:
            states = [status["status"] for status in client.statuses("by two", account)]
            assert (states.count("pending"), states.count("done")) == (1, 1)
        assert first.records() == {"accepted": len(records), "duplicate": 0, "rejected": 0}


async def test_a_partition_that_comes_back_goes_on_from_its_own_state(broker: Broker, tmp_path: Path) -> None:
    records = _generated()
    topics = await make_topics(broker, "back", PARTITIONS)
    async with client_of(broker, topics) as client, running_service(broker, topics, tmp_path / "1") as first:
        await client.produce(records[:1000])
        await first.applied(1000)
        async with running_service(broker, topics, tmp_path / "2") as second:
            await _share(first, second)
            await client.produce(records[1000:])
            await _tasks(client, records, "while shared")
        await _share(first)
        await _tasks(client, records, "alone again")
        assert first.records() == {"accepted": len(records), "duplicate": 0, "rejected": 0}


async def test_a_worker_with_a_name_of_its_own_is_back_without_a_rebalance(
    broker: Broker, tmp_path: Path
) -> None:
    records = _generated()
    topics = await make_topics(broker, "static", PARTITIONS)
    # Longer than the test may take: nobody waits for it to pass.
    patient = {"kafka__session_timeout_ms": 45_000, "kafka__heartbeat_interval_ms": 300}
    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path / "1", kafka__group_instance_id="one", **patient) as first,
    ):
        async with running_service(
            broker, topics, tmp_path / "2", kafka__group_instance_id="two", **patient
        ) as second:
            await _share(first, second)
            await client.produce(records[:1000])
            await _tasks(client, records[:1000], "by two")
            taken = second.records()
            assert taken["accepted"] > 0
            await second.stop()
        rebalances = first.sample("rebalances_total")
        async with running_service(
            broker, topics, tmp_path / "2", kafka__group_instance_id="two", **patient
        ) as second:
            await _share(first, second)
            await client.produce(records[1000:])
            await _tasks(client, records, "by two again")
            assert first.sample("rebalances_total") == rebalances
            # Its own state went on, and nothing was read twice.
            assert sum(worker.records()["duplicate"] for worker in (first, second)) == 0
            assert first.records()["accepted"] + taken["accepted"] + second.records()["accepted"] == len(
                records
            )


async def test_workers_that_come_and_go_under_load_count_every_record_once(
    broker: Broker, tmp_path: Path
) -> None:
    records = _generated(3000)
    topics = await make_topics(broker, "come-and-go", PARTITIONS)
    small = {"ingest__batch_max_records": 16}
    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path / "0", **small) as first,
    ):
        loading = asyncio.create_task(_trickle(client, records))
        for number in (1, 2, 3):
            async with running_service(broker, topics, tmp_path / f"{number}", **small) as other:
                await other.until(
                    lambda other=other: sum(other.records().values()) > 20, 30, "some work done"
                )
        await loading
        await _share(first)
        await _tasks(client, records, "after all")
    counted = {"accepted": 0}
    for partition in range(PARTITIONS):
        with PartitionView(database_path(tmp_path / "0" / "state", partition)) as view:
            for (result, _), count in view.counters().items():
                counted[result] = counted.get(result, 0) + count
    # A record that a rebalance had made the worker read twice would count as a duplicate.
    assert counted == {"accepted": len(records)}


async def _trickle(client: Client, records: list[GeneratedRecord]) -> None:
    for begin in range(0, len(records), 100):
        await client.produce(records[begin : begin + 100])
        await asyncio.sleep(0.1)
